"""Makes `model.json` out of XenAPI's published data model (`xenapi.json`): names and types without the prose.

    python -m tests.xen.server.reduce xenapi.json > tests/xen/server/model.json

One line a class, field and message, so that a newer data model shows as a difference of lines.
"""

import json
import sys
from pathlib import Path
from typing import Any


def reduce_class(each: dict[str, Any]) -> dict[str, Any]:
    """Return what the server needs of one class."""
    return {
        "fields": {
            field["name"]: [field["type"], field["qualifier"], *([field["default"]] if "default" in field else [])]
            for field in each["fields"]
        },
        "messages": {message["name"]: reduce_message(message) for message in each["messages"]},
        "enums": {enum["name"]: [value["name"] for value in enum["values"]] for enum in each["enums"]},
    }


def reduce_message(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message's parameters (`?` marks one that may be left out), result and errors."""
    made: dict[str, Any] = {
        "params": [
            [parameter["name"], parameter["type"], *([] if parameter["required"] else ["?"])]
            for parameter in message["params"]
        ],
        "result": message["result"][0] if message["result"] else "void",
    }
    if message["errors"]:
        made["errors"] = [error["name"] for error in message["errors"]]
    if message["implicit"]:
        made["implicit"] = True
    return made


def main() -> None:
    """Print the reduced model."""
    model = json.loads(Path(sys.argv[1]).read_text())
    lines = ["{"]
    for last, each in zip([*[False] * (len(model) - 1), True], model, strict=True):
        made = reduce_class(each)
        lines.append(f'"{each["name"]}": {{')
        for part in ("fields", "messages", "enums"):
            rows = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in made[part].items()]
            lines += [f'"{part}": {{', ",\n".join(rows), "}" + ("," if part != "enums" else "")]
        lines.append("}" if last else "},")
    print("\n".join([*lines, "}"]))


if __name__ == "__main__":
    main()
