"""Settings described once: checked, built from plain values, read from text, with a sentence for every mistake."""

from dataclasses import dataclass, field

import pytest

from trainer_core import options
from trainer_core.options import option


@dataclass(kw_only=True)
class Engine:
    speed: int = option(3, help="How fast", unit="km/h", low=1, high=9)
    fuel: str = option("coal", help="What burns", choices=("coal", "wood"))


@dataclass(kw_only=True)
class Train:
    name: str = option("", help="What it is called")
    weight: float | None = option(None, help="How heavy; empty = unknown", above=0, high=100)
    fast: bool = option(False, help="Whether it is fast", decides=False)
    stops: list[str] = option(factory=list, help="Where it stops")
    ratio: list[float] = option(factory=lambda: [1.0], help="Numbers", low=0)
    engine: Engine = field(default_factory=Engine)

    def problems(self, where=""):
        return [f"{where}.name: the bad name"] if self.name == "bad" else []


def test_options_are_what_the_fields_say_in_their_order():
    found = options.options_of(Train)
    assert list(found) == ["name", "weight", "fast", "stops", "ratio"]
    assert options.parts_of(Train) == {"engine": Engine}
    speed = options.options_of(Engine)["speed"]
    assert (speed.default, speed.help, speed.unit, speed.range) == (3, "How fast", "km/h", "1 to 9")
    assert found["weight"].range == "above 0, at most 100"
    assert options.options_of(Engine)["fuel"].range == "one of coal, wood"
    assert found["ratio"].default == [1.0] and found["ratio"].range == "at least 0"
    assert not found["fast"].decides and found["name"].decides


def test_a_part_is_built_from_plain_values_and_defaults():
    values = {"weight": 3, "stops": ["here"], "engine": {"speed": 5}}
    train, problems = options.build(Train, values)
    assert not problems
    assert train == Train(weight=3.0, stops=["here"], engine=Engine(speed=5))
    assert isinstance(train.weight, float)
    assert options.build(Train, options.as_dict(train)) == (train, [])


def test_all_mistakes_are_named_at_once_with_their_path_and_the_nearest_name():
    values = {"nmae": "x", "fast": 1, "zzzz": 0, "engine": {"sped": 4, "fuel": 7}, "stops": "here", "ratio": [1, "2"]}
    train, problems = options.build(Train, values, "train")
    assert problems == [
        "train.nmae: unknown setting; did you mean 'name'?",
        "train.fast: expected true or false, got a whole number (1)",
        "train.zzzz: unknown setting",
        "train.engine.sped: unknown setting; did you mean 'speed'?",
        "train.engine.fuel: expected text, got a whole number (7)",
        "train.stops: expected a list, got text ('here')",
        "train.ratio: expected a number, got text ('2')",
    ]
    assert train == Train()


def test_a_part_that_is_no_mapping_is_a_mistake_too():
    assert options.build(Train, [1])[1] == ["recipe: expected settings, got a list ([1])"]
    assert options.build(Train, {"engine": None})[1] == ["engine: expected settings, got nothing"]


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (True, int, "expected a whole number, got true or false (True)"),
        (1.0, int, "expected a whole number, got a number (1.0)"),
        (True, float, "expected a number, got true or false (True)"),
        (None, str, "expected text, got nothing"),
        ("1", float | None, "expected a number, got text ('1')"),
        ([["a"]], list[str], "expected text, got a list (['a'])"),
        ({}, str, "expected text, got settings ({})"),
    ],
)
def test_types_are_not_guessed(value, kind, said):
    with pytest.raises(TypeError) as caught:
        options.coerce(value, kind)
    assert str(caught.value) == said


def test_a_whole_number_stands_for_a_number_and_nothing_for_an_empty_one():
    assert options.coerce(2, float | None) == 2.0
    assert options.coerce(None, float | None) is None
    assert options.coerce((1, 2), list[float]) == [1.0, 2.0]


def test_values_out_of_range_say_value_range_and_unit():
    train = Train(weight=0.0, ratio=[1.0, -0.5], engine=Engine(speed=10, fuel="woode"))
    assert options.problems_of(train) == [
        "weight: 0 is out of range: above 0, at most 100",
        "ratio: -0.5 is out of range: at least 0",
        "engine.speed: 10 is out of range: 1 to 9 km/h",
        "engine.fuel: 'woode' is not one of coal, wood; did you mean 'wood'?",
    ]
    assert options.problems_of(Train(weight=100.0, engine=Engine(speed=1))) == []
    assert options.problems_of(Train(name="bad"), "train") == ["train.name: the bad name"]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_out_of_every_range(number):
    (problem,) = options.problems_of(Train(ratio=[number]))
    assert problem == f"ratio: {number} is not a finite number (at least 0)"


def test_whole_numbers_of_any_length_are_judged_and_not_tripped_over():
    huge = 10**400
    (problem,) = options.problems_of(Train(engine=Engine(speed=huge)))
    assert problem.startswith("engine.speed: ") and problem.endswith("is out of range: 1 to 9 km/h")
    assert len(problem) < 120
    _, (problem,) = options.build(Train, {"weight": huge})
    assert problem.startswith("weight: ") and len(problem) < 120


@dataclass(kw_only=True)
class Wagon:
    load: float | None = option(None, help="How much", low=0, high=10)
    kind: str = option("open", help="What it is", choices=("open", "closed"))


@dataclass(kw_only=True)
class Goods:
    wagons: list[Wagon] = option(factory=list, help="What is drawn")


def test_a_list_of_parts_is_built_checked_and_written_entry_by_entry():
    goods, problems = options.build(Goods, {"wagons": [{"load": 2}, {"laod": 1, "kind": 3}, "x"]}, "goods")
    assert problems == [
        "goods.wagons[1].laod: unknown setting; did you mean 'load'?",
        "goods.wagons[1].kind: expected text, got a whole number (3)",
        "goods.wagons[2]: expected settings, got text ('x')",
    ]
    assert goods.wagons == [Wagon(load=2.0), Wagon(), Wagon()]
    assert options.build(Goods, {"wagons": {}})[1] == ["wagons: expected a list, got settings ({})"]
    goods = Goods(wagons=[Wagon(load=11.0), Wagon(kind="opne")])
    assert options.problems_of(goods, "goods") == [
        "goods.wagons[0].load: 11 is out of range: 0 to 10",
        "goods.wagons[1].kind: 'opne' is not one of open, closed; did you mean 'open'?",
    ]
    assert options.as_dict(goods) == {"wagons": [{"load": 11.0, "kind": "open"}, {"kind": "opne"}]}
    text = options.Option("text", str | None, None, "A text or none")
    assert options.from_text("", text) == "" and options.from_text("none", text) is None
    told = options.options_of(Goods)["wagons"]
    assert options.from_text('[{"load": 3}]', told) == [Wagon(load=3.0)]
    for text, said in (("x", "not a JSON list"), ('{"load": 3}', "expected a list"), ('[{"a": 1}]', "[0].a: unknown")):
        with pytest.raises(TypeError) as refused:
            options.from_text(text, told)
        assert said in str(refused.value)


def described(name):
    return {**options.options_of(Train), **options.options_of(Engine)}[name]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("speed", "4", 4),
        ("weight", "2e-4", 2e-4),
        ("weight", "none", None),
        ("weight", "", None),
        ("fast", "Yes", True),
        ("fast", "off", False),
        ("fuel", "wood", "wood"),
        ("name", "a, b = c", "a, b = c"),
        ("stops", "a, b,", ["a", "b"]),
        ("stops", '["a, b", "c{1,2}"]', ["a, b", "c{1,2}"]),
        ("stops", "", []),
        ("ratio", "1, 2.5", [1.0, 2.5]),
        ("ratio", "[1, 2.5]", [1.0, 2.5]),
    ],
)
def test_values_are_read_from_the_command_line(name, text, value):
    found = options.from_text(text, described(name))
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("speed", "4.5", "expected a whole number, got '4.5'"),
        ("weight", "much", "expected a number, got 'much'"),
        ("fast", "perhaps", "expected true or false, got 'perhaps'"),
        ("ratio", "1, x", "expected a number, got 'x'"),
        ("stops", "[1]", "expected text, got a whole number"),
        ("stops", "[", "not a JSON list"),
    ],
)
def test_what_cannot_be_read_says_what_was_expected(name, text, said):
    with pytest.raises(TypeError, match=said):
        options.from_text(text, described(name))


def test_a_choice_in_other_letters_is_meant_as_it_is_written():
    assert options.options_of(Engine)["fuel"].complaint("WOOD").endswith("did you mean 'wood'?")
