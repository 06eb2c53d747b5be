"""What people read of a node in each language: its texts for the page's translation, and the lists of its help page.

`python tests/nodes/help_pages.py` writes locales/en/nodeDefs.json from the schemas, and the lists into every
web/docs/<node>/<language>.md from the schemas and that language's nodeDefs.json, which is written by hand but for
English and for the key at the end of each input's tooltip.
"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("en", "zh")
BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"
OF_MACHINE = ("base", "folder", "mask_folder", "assistant_file", "decorator_file")
"""Widgets whose choices are files, another list on every machine."""
WORDS = {
    "en": {
        "inputs": "Inputs",
        "settings": "Settings",
        "advanced": "Settings under *advanced*",
        "outputs": "Outputs",
        "default": "Default: ",
        "choices": "Choices: ",
        "machine": "what this machine has",
        "kind": " ({})",
        "optional": ", optional",
        "empty": "empty",
        "on": "on",
        "off": "off",
        ":": ": ",
        ",": ", ",
        ".": ". ",
    },
    "zh": {
        "inputs": "输入",
        "settings": "设置",
        "advanced": "高级输入",
        "outputs": "输出",
        "default": "默认值：",
        "choices": "可选值：",
        "machine": "本机已有的内容",
        "kind": "（{}）",
        "optional": "，可选",
        "empty": "空",
        "on": "开",
        "off": "关",
        ":": "：",
        ",": "、",
        ".": "。",
    },
}


def english(described):
    """locales/en/nodeDefs.json, from the nodes as describe.py describes them."""
    return {name: _texts(node) for name, node in described.items()}


def _texts(node):
    inputs = {one["name"]: _text(one["name"], one["told"].get("tooltip")) for one in node["inputs"]}
    outputs = {str(n): _text(name, said) for n, (name, _, _, said) in enumerate(node["outputs"])}
    return {
        "display_name": node["display_name"],
        "description": node["description"],
        "inputs": inputs,
        "outputs": outputs,
    }


def keyed(nodes):
    """A translation's nodeDefs.json, each input's tooltip with the key at its end by which messages name the input."""
    return {
        name: node | {"inputs": {key: _keyed(key, one) for key, one in node["inputs"].items()}}
        for name, node in nodes.items()
    }


def _keyed(key, text):
    # On a line of its own: ranges and choices are in brackets, too.
    return text | {"tooltip": f"{unkeyed(key, text).rstrip('。')}\n（{key}）"}


def unkeyed(key, text):
    """A tooltip without the key at its end."""
    return text.get("tooltip", "").removesuffix(f"（{key}）").rstrip("\n")


def _text(name, tooltip):
    return {"name": name} | ({"tooltip": tooltip} if tooltip else {})


def lists(node, texts, language):
    """The generated part of a help page: inputs, settings and outputs.

    No tables: the panel that shows them is as narrow as a hand, and names as long as settings have leave a column of
    explanations no room there.

    Args:
        node: as describe.py describes it.
        texts: its part of the language's nodeDefs.json.
    """
    words = WORDS[language]
    widgets = [one for one in node["inputs"] if one["widget"]]
    outputs = [{"name": name, "kind": kind, "key": str(n)} for n, (name, kind, *_) in enumerate(node["outputs"])]
    parts = [
        _sockets(words, "inputs", [one for one in node["inputs"] if not one["widget"]], texts["inputs"]),
        _settings(words, "settings", [one for one in widgets if not one["told"].get("advanced")], texts["inputs"]),
        _settings(words, "advanced", [one for one in widgets if one["told"].get("advanced")], texts["inputs"]),
        _sockets(words, "outputs", outputs, texts["outputs"]),
    ]
    return "\n\n".join(filter(None, parts))


def _sockets(words, heading, sockets, texts):
    lines = []
    for one in sockets:
        text = texts[one.get("key", one["name"])]
        kind = one["kind"].replace(",", words[","]) + (words["optional"] if one.get("optional") else "")
        lines.append(
            f"{_called(one['name'], text)}{words['kind'].format(kind)}{words[':']}{unkeyed(one['name'], text)}"
        )
    return _list(words[heading], lines)


def _settings(words, heading, widgets, texts):
    return _list(
        words[heading],
        [f"{_called(one['name'], texts[one['name']])}{words[':']}{_told(words, one, texts)}" for one in widgets],
    )


def _called(name, text):
    """The name as it is on the node and, where that is translated, as messages have it."""
    return f"**{text['name']}**" if text["name"] == name else f"**{text['name']}** `{name}`"


def _default(words, widget):
    told = widget["told"]
    value = told["options"][0] if "options" in told and "default" not in told else told["default"]
    if isinstance(value, bool):
        return words["on" if value else "off"]
    return f"`{value}`" if value != "" else words["empty"]


def _told(words, widget, texts):
    parts = [unkeyed(widget["name"], texts[widget["name"]]).rstrip(".。")]
    if "options" in widget["told"]:
        named = words[","].join(f"`{choice}`" for choice in widget["told"]["options"])
        parts.append(words["choices"] + (words["machine"] if widget["name"] in OF_MACHINE else named))
    return words["."].join([*parts, words["default"] + _default(words, widget)])


def _list(heading, lines):
    # A page's Markdown takes what is in angle brackets for HTML.
    return f"## {heading}\n\n" + "\n".join(f"- {line.replace('<', '&lt;')}" for line in lines) if lines else ""


def generated(page):
    """What stands between a page's marks."""
    return page.split(BEGIN)[1].split(END)[0].strip()


def with_lists(page, made):
    """The page with something else between its marks."""
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


def page_of(node, language):
    return ROOT / "web" / "docs" / node / f"{language}.md"


def texts_of(language, file="nodeDefs"):
    return json.loads((ROOT / "locales" / language / f"{file}.json").read_text(encoding="utf-8"))


def flat(texts, path=""):
    """The texts of a translation by their dotted keys."""
    if isinstance(texts, str):
        return {path: texts}
    return {k: v for key, one in texts.items() for k, v in flat(one, f"{path}.{key}".strip(".")).items()}


SETTING = re.compile(r"\b(?:[a-z]+(?:_[a-z0-9]+)+|(?:adapter|dataset|output|preview|run)\.[a-z_]+)\b")


def settings_in(text, called):
    """Other settings that a text names by their keys (`shuffle_tags`, `dataset.holdout`), with what a page calls each.

    Args:
        called: by each input's key, what the page calls it on the nodes that have it.
    """
    found = {one: called.get(one.replace(".", "_")) or called.get(one.split(".")[-1]) for one in SETTING.findall(text)}
    return {one: names for one, names in found.items() if names}


CODE = re.compile(r"\{[^}]*\}|\[trigger\]|[\w.]+[_/=+][\w+/.=-]*|\d+(?:\.\d+)?(?:e[+-]?\d+)?", re.ASCII)


def code_in(text):
    """What no translation changes: numbers, names with an underscore or a slash in them, what is in braces."""
    return {found.strip(".") for found in CODE.findall(text)}


def main():
    import asyncio
    import importlib.util
    import sys
    import tempfile

    def beside(name):
        spec = importlib.util.spec_from_file_location(f"nodes_{name}", Path(__file__).parent / f"{name}.py")
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    fakes, describe = beside("fakes"), beside("describe")
    with tempfile.TemporaryDirectory() as folder, fakes.installed(fakes.Host(Path(folder) / "comfy")):
        described = describe.describe(asyncio.run(describe.nodes_of(describe.load(ROOT))))
    written = json.dumps(english(described), ensure_ascii=False, indent=2) + "\n"
    (ROOT / "locales" / "en" / "nodeDefs.json").write_text(written, encoding="utf-8", newline="\n")
    for language in LANGUAGES:
        texts = texts_of(language)
        if language != "en":
            texts = keyed(texts)
            path = ROOT / "locales" / language / "nodeDefs.json"
            path.write_text(json.dumps(texts, ensure_ascii=False, indent=2) + "\n", encoding="utf-8", newline="\n")
        for name, node in described.items():
            page = page_of(name, language)
            made = with_lists(page.read_text(encoding="utf-8"), lists(node, texts[name], language))
            page.write_text(made, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
