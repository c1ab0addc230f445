"""Backup instance names: three random words, ``gentle-forest-orchid``."""

import re
from collections.abc import Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")

_NAME = re.compile(r"[a-z]+(?:-[a-z]+){2}", re.ASCII)
_LONGEST = 64


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


QUALITIES = _words(
    """
    amber ancient autumn blue bold brave breezy bright bronze calm candid careful cheerful clear clever cosy
    crimson crisp curious daring dusky eager early easy emerald fair fearless fresh friendly frosty gentle
    glad golden graceful green happy hardy hidden honest humble ivory jolly keen kind lively loyal lucid
    lunar mellow merry mild misty modest nimble noble patient peaceful placid plain polite proud quick quiet
    radiant rapid rosy royal ruby rustic scarlet serene sharp shiny silent silver simple sincere smooth snowy
    solar solid spring steady still sunny swift tender tidy tranquil velvet violet vivid warm wise witty
    """
)
PLACES = _words(
    """
    bay beach bridge brook canal canyon cape cave cliff cloud coast cove creek dale delta desert dune
    estuary field fjord forest garden geyser glacier glade glen gorge grove gulf harbor haven heath hill
    hollow island isle jungle lagoon lake lighthouse meadow mesa mill moor mountain oasis ocean orchard
    path peak peninsula plain plateau pond prairie quarry rapids reef ridge river road savanna sea shore
    sky spring steppe strait stream summit tundra valley village vineyard wharf wood
    """
)
THINGS = _words(
    """
    acorn alder anemone apple aspen aster badger bamboo beaver beech birch bluebell bramble buttercup
    camellia canary carnation cedar cherry chestnut clover condor cormorant crane crocus cypress daffodil
    dahlia daisy dolphin dove elm falcon fern finch fir foxglove gardenia ginkgo hare hawthorn hazel heron
    hibiscus holly hyacinth iris ivy jasmine juniper kestrel kingfisher lark laurel lavender lilac lily
    linden lotus lupin magnolia maple marigold marten mimosa moss myrtle narcissus oak olive orchid osprey
    otter owl pansy peony petrel pine plover poplar poppy primrose puffin quail raven robin rose rowan
    sage salmon seal sorrel sparrow spruce starling swallow swan thistle thrush thyme tulip violet walnut
    willow wren yarrow yew
    """
)


class Chooser(Protocol):
    """`random.Random`, `random.SystemRandom` or the module `secrets`."""

    def choice(self, seq: Sequence[T], /) -> T:
        """Any element of the sequence."""


def new_instance_name(random: Chooser) -> str:
    """A fresh name; about 800,000 exist, so the caller makes sure that the store has no equal one."""
    return "-".join(random.choice(words) for words in (QUALITIES, PLACES, THINGS))


def is_instance_name(text: str) -> bool:
    """Whether the text has the form of a name: three lower-case words, so it is safe in a key or a path.

    The words themselves are free: a name may come from QuestDB Enterprise or from a template.
    """
    return len(text) <= _LONGEST and _NAME.fullmatch(text) is not None
