"""What tests of dispatch share: layers that say which rule made them."""

import abc

import equinox as eqx

import graftax as gx


class Tag(eqx.Module):
    """A layer that says which rule made it."""

    rule: str = eqx.field(static=True)

    def __call__(self, x):
        return x


class Base(eqx.Module):
    def __call__(self, x):
        return x


class Middle(Base):
    pass


class Leaf(Middle):
    pass


class Virtual(metaclass=abc.ABCMeta):  # noqa: B024
    """A class that others are registered for, and that is in no MRO."""


Virtual.register(Leaf)


def tagging(*criteria, default="default"):
    """A dispatch whose rules, one a criterion, put a `Tag` with their number in place of the layer."""

    @gx.dispatch
    def tag(layer):
        return layer

    for i, criterion in enumerate(criteria):
        tag.register(criterion, lambda layer, i=i: Tag(str(i)))
    return tag


def nested():
    return gx.Chain(
        stem=Leaf(),
        encoder=gx.Chain(
            gx.Chain(query=Leaf(), value=Leaf()), gx.Chain(query=Leaf(), value=Leaf())
        ),
    )


def tag_at(model, path):
    return gx.select(model, path).one().rule
