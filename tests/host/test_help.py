"""The host serves each node's help and its texts in each language."""

import pytest


@pytest.mark.parametrize(("language", "title"), [("en", "# Train LoRA (Scion)"), ("zh", "# 训练 LoRA (Scion)")])
def test_help_and_texts_are_served(host, language, title):
    nodes = [name for name in host.get("/object_info") if name.startswith("Scion")]
    assert len(nodes) == 8
    texts = host.get("/i18n")[language]
    assert texts["nodeCategories"]["Scion"] == "Scion"
    for name in nodes:
        page = host.request(f"/extensions/scion/docs/{name}/{language}.md").decode()
        assert page.startswith(f"# {texts['nodeDefs'][name]['display_name']}\n")
        assert host.request(f"/extensions/scion/docs/images/{name}.{language}.jpg").startswith(b"\xff\xd8")
    assert host.request(f"/extensions/scion/docs/ScionTrainLoRA/{language}.md").decode().startswith(title)


def test_presets_and_idle_settings_are_told_of_the_widgets_that_the_host_has(host):
    told, nodes = host.get("/scion/widgets"), host.get("/object_info")
    names = {node: {name for group in nodes[node]["input"].values() for name in group} for node in told["idle"]}
    assert all({rule["widget"] for rule in rules} <= names[node] for node, rules in told["idle"].items())
    assert len(told["presets"]) == 9
    assert all(set(filled) <= names["ScionLoRATrainConfig"] for filled in told["presets"].values())
    assert host.get("/i18n")["zh"]["settings"]["Scion_ChartTheme"]["name"] == "损失曲线的主题"
