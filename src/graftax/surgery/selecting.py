"""The two doors to surgery: `select`, and `replace_where` for the commonest edit."""

from collections.abc import Callable
from typing import Any, TypeVar

from jaxtyping import PRNGKeyArray

from ..structure.above import Above
from .criteria import Criterion, find, read_criteria, whole
from .selection import Selection

M = TypeVar("M")


def select(model: M, *criteria: Criterion, expect: int | None = None) -> Selection[M]:
    """The nodes of a model that meet all criteria, as a value to read, narrow and edit with.

    **Arguments:**

    - `model`: any pytree: a container, an Equinox module, a dict of arrays, an optimiser state, ...
    - `criteria`: each a pattern; a list of patterns, of which each must match something; a compiled
        regular expression, for the whole path; a type or tuple of types; or a predicate on the node.
    - `expect`: how many nodes there must be.

    **Returns:**

    A `Selection`, in the order of `graftax.walk`, one node a path. A pattern alone picks the
    outermost layer at a path; a type or predicate reaches what a transparent wrapper holds.

    **Raises:**

    - `PatternError`: a malformed pattern.
    - `NoMatchError`: a pattern of a list matches nothing, or nothing matches and `expect` is not 0.
    - `MatchError`: another number than `expect`.
    - `TypeError`: something that is no criterion.

    **Example:**

    ```python
    >>> import equinox as eqx, graftax as gx, jax
    >>> mlp = eqx.nn.MLP(2, 2, 8, depth=2, key=jax.random.key(0))
    >>> gx.select(mlp, "layers[-2:]", eqx.nn.Linear).paths
    ('layers.1', 'layers.2')
    >>> wider = gx.select(mlp, "weight").apply(lambda w: 2 * w)
    >>> bool((wider.layers[0].weight == 2 * mlp.layers[0].weight).all())
    True

    ```
    """
    query = read_criteria(criteria)
    selection = Selection(model, find(whole(model), query), query)
    return selection if expect is None else selection.expect(expect)


def replace_where(
    model: M, where: Criterion, fn: Callable[..., Any], key: PRNGKeyArray | None = None
) -> M:
    """The model with every node that `where` picks replaced: `select(model, where).apply(fn, key)`.

    **Arguments:**

    - `model`: any pytree.
    - `where`: one criterion, as in `graftax.select`.
    - `fn`: a function of the node. It is given `key=` and `path=` if it declares them.
    - `key`: a random key, for an `fn` that declares one.

    **Returns:**

    The new model.

    **Raises:**

    - `NoMatchError`: nothing is picked.
    - What `graftax.select` and `Selection.apply` raise.

    **Example:**

    ```python
    >>> import graftax as gx, jax
    >>> gx.Chain(act=jax.nn.relu).replace_where("act", lambda _: jax.nn.silu)
    Chain(act=silu)

    ```
    """
    return select(model, where).apply(fn, key)


# A method of the model too, see `structure.above`.
Above.replace_where = staticmethod(replace_where)
