"""Choosing and editing: selections, dispatch, ties, state."""

from . import lending as lending
from .arguments import each as each
from .extending import extend_state as extend_state
from .fields import update as update
from .hints import MatchError as MatchError, NoMatchError as NoMatchError
from .labelling import label_fn as label_fn, partition as partition
from .rules import Dispatch as Dispatch, dispatch as dispatch
from .selecting import replace_where as replace_where, select as select
from .selection import Selection as Selection
from .state import with_state as with_state
from .ties import tie as tie
