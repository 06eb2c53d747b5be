"""The host serves each node's help and its texts in each language."""

import pytest


@pytest.mark.parametrize(("language", "title"), [("en", "# Train LoRA (Scion)"), ("zh", "# 训练 LoRA (Scion)")])
def test_help_and_texts_are_served(host, language, title):
    nodes = [name for name in host.get("/object_info") if name.startswith("Scion")]
    assert len(nodes) == 7
    texts = host.get("/i18n")[language]
    assert texts["nodeCategories"]["Scion"] == "Scion"
    for name in nodes:
        page = host.request(f"/extensions/scion/docs/{name}/{language}.md").decode()
        assert page.startswith(f"# {texts['nodeDefs'][name]['display_name']}\n")
        assert host.request(f"/extensions/scion/docs/images/{name}.{language}.jpg").startswith(b"\xff\xd8")
    assert host.request(f"/extensions/scion/docs/ScionTrainLoRA/{language}.md").decode().startswith(title)
