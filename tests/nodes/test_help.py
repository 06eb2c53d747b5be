"""Each node's help and texts are there in each language, made from the schemas, and complete."""

import importlib.util
import re
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("nodes_help_pages", Path(__file__).parent / "help_pages.py")
help_pages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(help_pages)

MADE_BY = "python tests/nodes/help_pages.py writes it"
TRANSLATIONS = [language for language in help_pages.LANGUAGES if language != "en"]
SAME_EVERYWHERE = {"Alpha", "Beta1", "Beta2", "CLIP", "Epsilon", "Huber delta", "LoRA", "Min-SNR gamma", "Scion", "VAE"}
SAME_EVERYWHERE |= {"rsLoRA"}
"""What Chinese users write in Latin letters."""


def every_text(language):
    texts = help_pages.flat({file: help_pages.texts_of(language, file) for file in ("nodeDefs", "main")})
    # The panel's words have their English in web/js/lib/text.js, and their tests in tests/web/text.test.mjs; reasons of
    # idle settings theirs in trainer_core, and a test below.
    return {key: text for key, text in texts.items() if not key.startswith(("main.scion.", "main.scionIdle."))}


def test_english_texts_are_those_of_the_schemas(pack):
    assert help_pages.texts_of("en") == help_pages.english(pack.described()), MADE_BY


def test_every_input_and_output_is_explained(pack):
    texts = help_pages.flat(help_pages.english(pack.described()))
    names = [key for key in texts if key.endswith(".name")]
    assert len(names) > 120
    assert [key for key in names if not texts.get(f"{key.removesuffix('name')}tooltip")] == []


@pytest.mark.parametrize("language", help_pages.LANGUAGES)
def test_every_node_has_a_page_whose_lists_are_those_of_its_schema(pack, language):
    described, texts = pack.described(), help_pages.texts_of(language)
    assert {path.parent.name for path in (help_pages.ROOT / "web/docs").glob(f"*/{language}.md")} == set(described)
    for name, node in described.items():
        page = help_pages.page_of(name, language).read_text(encoding="utf-8")
        assert page.startswith(f"# {texts[name]['display_name']}\n")
        assert help_pages.generated(page) == help_pages.lists(node, texts[name], language), f"{name}: {MADE_BY}"


@pytest.mark.parametrize("language", help_pages.LANGUAGES)
def test_every_page_shows_its_node_and_tells_of_mistakes(pack, language):
    for name in pack.described():
        page = help_pages.page_of(name, language).read_text(encoding="utf-8")
        # The page's links begin at the folder of all nodes' help.
        pictures = re.findall(r"!\[.+\]\((.+)\)", page)
        assert pictures and all((help_pages.ROOT / "web/docs" / path).is_file() for path in pictures), name
        assert page.split(help_pages.END)[1].count("\n- **") >= 3, name


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_a_translation_has_the_english_keys_and_no_other(language):
    assert set(every_text(language)) == set(every_text("en"))


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_a_translation_keeps_numbers_names_and_what_is_in_braces(language):
    translated, called = every_text(language), names_of_inputs(language)
    lost = {}
    for key, text in said("en").items():
        settings = help_pages.settings_in(text, called)
        missing = help_pages.code_in(text) - help_pages.code_in(translated[key])
        lost[key] = {one for one in missing if one.split("=")[0] not in settings}
    assert {key: missing for key, missing in lost.items() if missing} == {}


def names_of_inputs(language):
    called = {}
    for node in help_pages.texts_of(language).values():
        for key, text in node["inputs"].items():
            called.setdefault(key, set()).add(text["name"])
    return called


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_a_translation_calls_other_settings_as_the_page_does(language):
    texts, called = help_pages.texts_of(language), names_of_inputs(language)
    missing, english = {}, []
    for node, said_in_english in help_pages.texts_of("en").items():
        for key, text in said_in_english["inputs"].items():
            told = help_pages.unkeyed(key, texts[node]["inputs"][key])
            english += help_pages.settings_in(told, called)
            for setting, names in help_pages.settings_in(text["tooltip"], called).items():
                if not any(f"“{name}”" in told for name in names):
                    missing[f"{node}.{key}"] = setting
    assert (missing, english) == ({}, [])


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_a_translation_ends_what_it_says_of_an_input_with_the_key_that_messages_have(language):
    texts = help_pages.texts_of(language)
    assert texts == help_pages.keyed(texts), MADE_BY


def said(language):
    """Sentences: not names, in which `preview_width` becomes a word."""
    return {key: text for key, text in every_text(language).items() if not key.endswith("name") and "main." not in key}


def test_chinese_texts_are_chinese():
    texts = every_text("zh")
    assert {key: text for key, text in texts.items() if not re.search("[一-鿿]", text)} == {
        key: text for key, text in texts.items() if text in SAME_EVERYWHERE
    }


@pytest.mark.parametrize("language", help_pages.LANGUAGES)
def test_names_hold_nothing_that_the_page_would_take_for_a_placeholder(language):
    """Tooltips are shown as they are; names and descriptions are compiled as vue-i18n's messages."""
    compiled = {key: text for key, text in every_text(language).items() if not key.endswith("tooltip")}
    assert len(compiled) > 130
    assert [key for key, text in compiled.items() if set(text) & set("{}@|")] == []


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_reasons_of_idle_settings_are_translated(pack, language):
    rules = pack("trainer_core.idle_settings").RULES
    assert set(help_pages.texts_of(language, "main")["scionIdle"]) == {rule.id for rule in rules}
