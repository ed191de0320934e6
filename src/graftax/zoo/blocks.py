"""How many blocks a checkpoint has, by the names of its weights alone."""

import re
from collections.abc import Collection, Mapping

from ..files import Report, WeightsError
from ..files.rename import template_expression


def check_blocks(
    wanted: int | tuple[int, ...], templates: Mapping[str, str], names: Collection[str]
) -> str | None:
    """Why the number of blocks is not that of the weights; None if it is.

    What is built takes time for each block, so that a number is to be trusted before.

    **Arguments:**

    - `wanted`: the number of blocks, or those of each stage.
    - `templates`: from the paths of blocks to their names, `{"encoder.{i}": "encoder.layer.{i}"}`. Where
        there are several, one of them is that of the checkpoint.
    - `names`: of the weights.

    **Raises:**

    - `WeightsError`: no block has such a name.
    """
    for template in templates.values():
        if found := _count(template, names, is_staged=isinstance(wanted, tuple)):
            break
    else:
        raise _no_blocks(templates, names)
    if isinstance(wanted, int):
        found = sum(found)
    if found == wanted:
        return None
    return f"; the weights, whose names are like {template!r}, have {_said(found)} blocks."


def _count(template: str, names: Collection[str], is_staged: bool) -> tuple[int, ...]:
    """The number of different blocks in each stage; of one stage if they are in none."""
    expression = re.compile(template_expression(template))
    stages: dict[str, set[str]] = {}
    for match in filter(None, map(expression.search, names)):
        *stage, block = match.groups()
        stages.setdefault(stage[0] if is_staged else "", set()).add(block)
    return tuple(len(stages[stage]) for stage in sorted(stages, key=lambda s: (len(s), s)))


def _said(found: int | tuple[int, ...]) -> str:
    return str(found if isinstance(found, int) else list(found))


def _no_blocks(templates: Mapping[str, str], names: Collection[str]) -> WeightsError:
    first = {
        re.sub(r"\{\w+\}", "0", path): re.sub(r"\{\w+\}", "0", name)
        for path, name in templates.items()
    }
    return WeightsError(
        "The checkpoint is no such model: none of its names is that of a block.",
        Report(first, tuple(names), {}),
    )
