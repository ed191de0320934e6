"""How much of what graftax shows is typed: `pyright --verifytypes`, and a bound that it must reach."""

import json
import os
import subprocess
import sys
from pathlib import Path

BOUND = 0.98


def report() -> dict:
    # Pyright asks the first `python` on the path what is installed, whatever `--pythonpath` says.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = [
        sys.executable,
        "-m",
        "pyright",
        "--verifytypes",
        "graftax",
        "--ignoreexternal",
        "--outputjson",
    ]
    done = subprocess.run(command, env=os.environ | {"PATH": path}, capture_output=True, text=True)
    try:
        return json.loads(done.stdout)["typeCompleteness"]
    except (ValueError, KeyError):
        sys.exit(f"pyright --verifytypes did not run:\n{done.stdout}{done.stderr}")


def untyped(found: dict):
    for symbol in found["symbols"]:
        if symbol["isExported"] and not (symbol["isTypeKnown"] and not symbol["isTypeAmbiguous"]):
            for each in symbol["diagnostics"]:
                yield f"{symbol['name']}: {each['message'].splitlines()[0]}"


if __name__ == "__main__":
    found = report()
    score = found["completenessScore"]
    if score < BOUND:
        print("\n".join(untyped(found)))
    print(f"{score:.1%} of the types are known; at least {BOUND:.0%} must be.")
    sys.exit(score < BOUND)
