"""What models cost: the table that ships, and the owner's file before it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from services.execution.adapters.prices import FilePrices
from services.execution.domain import Price, Usage
from services.kit.settings import SettingsError

LISTED = ("openai", "anthropic", "gemini", "openrouter", "groq", "fireworks")
OWN = """
openai:
  gpt-6.1-terra: {input: 0.5, output: "2.25"}
  gpt-4o: {description: "Ours."}
  our-tune: {input: 3, output: 12, context_tokens: 8_000}
house:
  "*": {input: 0, output: 0}
  big: {input: 1, output: 1}
  unpriced: {description: "Nobody knows."}
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "prices.yaml"
    file.write_text(OWN)
    return file


def replace(file: Path, text: str) -> None:
    """Write a file as careful people do, so that its inode is another one."""
    beside = file.with_suffix(".new")
    beside.write_text(text)
    beside.replace(file)


class TestShipped:
    @pytest.mark.parametrize("ai_provider", LISTED)
    def test_every_model_has_a_price_a_size_and_a_description(self, ai_provider: str) -> None:
        prices = FilePrices()

        models = prices.models(ai_provider)

        assert models
        for id_, model in models.items():
            price = prices.price(ai_provider, id_)
            assert (model.id, model.ai_provider) == (id_, ai_provider)
            assert model.description
            assert model.context_tokens is not None
            assert model.context_tokens >= (model.max_output_tokens or 1)
            assert price is not None
            assert 0 <= (price.cached_input or 0) <= price.input <= price.output

    @pytest.mark.parametrize("ai_provider", LISTED)
    def test_the_default_of_a_provider_is_neither_its_dearest_nor_free(
        self, ai_provider: str
    ) -> None:
        prices = FilePrices()

        first, *rest = (
            price.output
            for id_ in prices.models(ai_provider)
            if (price := prices.price(ai_provider, id_)) is not None
        )

        assert 0 < first < max(rest)

    @pytest.mark.parametrize("ai_provider", ["mock", "ollama"])
    def test_models_of_this_machine_cost_nothing_whatever_their_name(
        self, ai_provider: str
    ) -> None:
        prices = FilePrices()

        assert prices.price(ai_provider, "whatever") == Price(input=0, output=0)
        assert prices.models(ai_provider) == {}

    def test_a_model_nobody_listed_has_no_price(self) -> None:
        prices = FilePrices()

        assert prices.price("openai", "gpt-0") is None
        assert prices.price("nobody", "gpt-4o") is None
        assert prices.models("nobody") == {}


class TestCosts:
    """Figures worked out by hand from what the providers list, in nano-dollars."""

    @pytest.mark.parametrize(
        ("ai_provider", "model", "usage", "cost"),
        [
            pytest.param(
                "openai",
                "gpt-4o",
                Usage(input_tokens=1_000, output_tokens=500),
                # $2.50 and $10 a million: $0.0025 + $0.005
                2_500_000 + 5_000_000,
                id="input-and-output",
            ),
            pytest.param(
                "openai",
                "gpt-4.1",
                Usage(input_tokens=10_000, output_tokens=200, cached_input_tokens=8_000),
                # 2,000 at $2, 8,000 at $0.50, 200 at $8
                2_000 * 2_000 + 8_000 * 500 + 200 * 8_000,
                id="cached-input",
            ),
            pytest.param(
                "anthropic",
                "claude-sonnet-5-5",
                Usage(
                    input_tokens=12_345,
                    output_tokens=678,
                    cached_input_tokens=10_000,
                    cache_write_input_tokens=2_000,
                ),
                # 345 at $2, 10,000 at $0.10, 2,000 at $2.50, 678 at $10
                345 * 2_000 + 10_000 * 100 + 2_000 * 2_500 + 678 * 10_000,
                id="cache-write",
            ),
            pytest.param(
                "gemini",
                "gemini-2.5-pro",
                Usage(input_tokens=7, output_tokens=3_000, reasoning_tokens=2_900),
                # 7 at $1.25; 3,000 at $10, of which the thinking is a part and not an addition
                7 * 1_250 + 3_000 * 10_000,
                id="reasoning",
            ),
            pytest.param(
                "groq",
                "openai/gpt-oss-20b",
                Usage(input_tokens=1, output_tokens=1, cached_input_tokens=1),
                # $0.0375 and $0.30 a million: 37.5 + 300 nano-dollars, rounded up
                338,
                id="less-than-a-nano-dollar",
            ),
            pytest.param(
                "openai",
                "gpt-5.5",
                Usage(input_tokens=100, output_tokens=0, cache_write_input_tokens=100),
                # no price of its own for what is written to the cache: $5 like other input
                100 * 5_000,
                id="no-price-for-cache-writes",
            ),
        ],
    )
    def test_a_call_costs_what_its_provider_lists(
        self, ai_provider: str, model: str, usage: Usage, cost: int
    ) -> None:
        price = FilePrices().price(ai_provider, model)

        assert price is not None
        assert price.cost(usage) == cost


class TestOwn:
    def test_a_price_replaces_the_whole_price_and_keeps_the_rest(self, own: Path) -> None:
        prices = FilePrices(own)

        shipped = FilePrices().models("openai")["gpt-6.1-terra"]

        assert prices.price("openai", "gpt-6.1-terra") == Price(500_000_000, 2_250_000_000)
        assert prices.models("openai")["gpt-6.1-terra"] == shipped

    def test_a_row_without_a_price_keeps_the_price(self, own: Path) -> None:
        prices = FilePrices(own)

        assert prices.price("openai", "gpt-4o") == FilePrices().price("openai", "gpt-4o")
        assert prices.models("openai")["gpt-4o"].description == "Ours."
        assert prices.models("openai")["gpt-4o"].context_tokens == 128_000

    def test_a_new_row_comes_after_those_there_are(self, own: Path) -> None:
        models = FilePrices(own).models("openai")

        assert [*models] == [*FilePrices().models("openai"), "our-tune"]
        assert models["our-tune"].context_tokens == 8_000

    def test_any_stands_for_models_without_a_row_only(self, own: Path) -> None:
        prices = FilePrices(own)

        assert prices.price("house", "small") == Price(0, 0)
        assert prices.price("house", "big") == Price(1_000_000_000, 1_000_000_000)
        assert prices.price("house", "unpriced") is None
        assert [*prices.models("house")] == ["big", "unpriced"]

    def test_numbers_are_read_as_they_are_written(self, own: Path) -> None:
        own.write_text('openai: {m: {input: 0.1, output: "0.000000003", cached_input: 1e-9}}')

        assert FilePrices(own).price("openai", "m") == Price(100_000_000, 3, 1)


class TestChanges:
    def test_a_change_on_disk_shows_at_the_next_look_up(self, own: Path) -> None:
        prices = FilePrices(own)

        replace(own, OWN.replace("input: 0.5", "input: 0.25"))

        assert prices.price("openai", "gpt-6.1-terra") == Price(250_000_000, 2_250_000_000)

    def test_a_row_that_was_taken_out_is_the_shipped_one_again(self, own: Path) -> None:
        prices = FilePrices(own)

        replace(own, "openai: {gpt-4o: {input: 1, output: 1}}")

        assert prices.price("openai", "gpt-6.1-terra") == FilePrices().price(
            "openai", "gpt-6.1-terra"
        )
        assert prices.price("house", "small") is None

    def test_a_change_that_keeps_size_and_age_shows_too(self, own: Path) -> None:
        prices = FilePrices(own)
        before = own.stat()

        replace(own, OWN.replace("input: 0.5", "input: 0.6"))
        os.utime(own, ns=(before.st_atime_ns, before.st_mtime_ns))

        assert prices.price("openai", "gpt-6.1-terra") == Price(600_000_000, 2_250_000_000)

    @pytest.mark.parametrize(
        ("spoil", "said"),
        [
            (lambda file: replace(file, "openai: {gpt-4o: {input: -1, output: 1}}"), "gpt-4o"),
            (lambda file: replace(file, ""), "has no rows"),
            (lambda file: file.unlink(), "cannot be read"),
            (lambda file: (file.unlink(), file.mkdir()), "is not a file"),
        ],
        ids=["wrong", "empty", "gone", "folder"],
    )
    def test_a_broken_change_keeps_the_figures_and_is_logged_once(
        self,
        own: Path,
        caplog: pytest.LogCaptureFixture,
        spoil: Callable[[Path], object],
        said: str,
    ) -> None:
        prices = FilePrices(own)
        before = prices.price("openai", "gpt-6.1-terra")

        spoil(own)
        after = [prices.price("openai", "gpt-6.1-terra") for _ in range(3)]

        assert after == [before] * 3
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert str(own) in record.getMessage()
        assert said in record.getMessage()

    def test_a_mended_file_counts_again(self, own: Path, caplog: pytest.LogCaptureFixture) -> None:
        prices = FilePrices(own)
        replace(own, "openai: [")
        prices.price("openai", "gpt-4o")

        replace(own, "openai: {gpt-4o: {input: 7, output: 7}}")

        assert prices.price("openai", "gpt-4o") == Price(7_000_000_000, 7_000_000_000)
        assert [record.levelno for record in caplog.records] == [logging.ERROR]


class TestWrong:
    @pytest.mark.parametrize(
        ("row", "said"),
        [
            ("{input: -1, output: 1}", "input is '-1'"),
            ("{input: .nan, output: 1}", "input is '.nan'"),
            ("{input: NaN, output: 1}", "input is 'NaN'"),
            ("{input: 1, output: Infinity}", "output is 'Infinity'"),
            ("{input: 1, output: 1e999999999}", "output is '1e999999999'"),
            ("{input: 1, output: true}", "output is 'true'"),
            ("{input: 1, output: }", "output is ''"),
            ("{input: 1, output: much}", "output is 'much'"),
            ("{input: 0.1234567891, output: 1}", "at most 9 decimals"),
            ("{input: 1, output: 1, cached_input: 0x1}", "cached_input is '0x1'"),
            ("{input: 1}", "write both"),
            ("{cached_input: 1}", "write both"),
            ("{input: 1, output: 1, input: 2}", "is there twice"),
            ("{input: 1, output: 1, cost: 2}", "cost is unknown"),
            ("{<<: {input: 1, output: 1}}", "<< is unknown"),
            ("{input: [1], output: 1}", "input must be one value"),
            ("{input: 1, output: 1, context_tokens: 0}", "context_tokens is '0'"),
            ("{input: 1, output: 1, max_output_tokens: 1.5}", "max_output_tokens is '1.5'"),
            ("{input: 1, output: 1, context_tokens: 99999999999999}", "whole number"),
            ("12", "must hold prices and limits"),
            ("", "must hold prices and limits"),
        ],
    )
    def test_a_wrong_row_is_named_with_the_setting_and_the_fix(
        self, own: Path, row: str, said: str
    ) -> None:
        own.write_text(f"openai:\n  fine: {{input: 1, output: 1}}\n  the-model: {row}\n")

        with pytest.raises(SettingsError) as refused:
            FilePrices(own)

        message = str(refused.value)
        assert message.startswith(f"CONDUCTOR_EXECUTION_PRICE_FILE: {own}: ")
        assert "openai: the-model (line 3)" in message
        assert said in message

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "has no rows"),
            ("# nothing\n", "has no rows"),
            ("[openai]", "must hold providers"),
            ("openai: none", "openai (line 1) must hold models"),
            ("openai: {}\nopenai: {}", "openai (line 2) is there twice"),
            ("openai: {m: {input: 1, output: 1}}\n---\n{}", "second document"),
            ("openai: {m: {input: 1, output: 1}", "make it YAML"),
            ("openai: {? [m] : {}}", "line 1: a name must be text"),
            ('openai: {"*": {description: all}}', "* (line 1) must hold input and output"),
            ("a: &a {m: {input: 1, output: 1}}\nb: *a", "b (line 2) must hold models"),
            ("[" * 500_000, "must hold providers"),
            ("openai: {m: " + "{input: " * 100_000, "must be one value"),
            ("openai: \0", "make it YAML"),
            ("#" * 2_000_000, "more than 1048576 bytes"),
        ],
        ids=range(14),
    )
    def test_a_wrong_file_is_named_with_the_setting_and_the_fix(
        self, own: Path, text: str, said: str
    ) -> None:
        own.write_text(text)

        with pytest.raises(SettingsError) as refused:
            FilePrices(own)

        assert str(refused.value).startswith(f"CONDUCTOR_EXECUTION_PRICE_FILE: {own}: ")
        assert said in str(refused.value)

    def test_a_file_that_is_no_text_is_refused(self, own: Path) -> None:
        own.write_bytes(b"\xff\xfe\x00")

        with pytest.raises(SettingsError, match="not UTF-8"):
            FilePrices(own)

    def test_a_file_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="cannot be read"):
            FilePrices(tmp_path / "prices.yaml")

    def test_what_is_no_file_is_not_waited_for(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)

        with pytest.raises(SettingsError, match="is not a file"):
            FilePrices(pipe)


def test_prices_of_a_provider_that_is_not_there_are_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = tmp_path / "prices.yaml"
    own.write_text("opnai:\n  m: {input: 1, output: 2}\nhouse:\n  m: {input: 1, output: 2}\n")
    FilePrices(own, ["house"])
    assert [one.getMessage() for one in caplog.records] == [
        "The price file has prices of 'opnai', and no provider has that name."
    ]
