"""Settings come from arguments, then variables, then defaults, and wrong ones end in one sentence."""

from pathlib import Path

import pytest

from service.config import Settings, is_loopback, load_settings
from service.errors import ConfigurationError


def test_settings_defaults_are_those_of_the_contract() -> None:
    """Body 8 MiB, 10,000 rows a batch, 1,000 retained rows, 30 days, 7 days for labels, loopback."""
    settings = load_settings()
    assert settings.body_bytes_max == 8 * 1024 * 1024
    assert settings.batch_rows_max == 10_000
    assert settings.retained_rows == 1_000
    assert settings.log_days == 30
    assert (settings.pending_days, settings.pending_rows_max) == (7, 10_000)
    assert not settings.activate
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable overrides the default, an argument overrides the variable, None is no argument."""
    monkeypatch.setenv("ACCLIMATE_PORT", "9000")
    monkeypatch.setenv("ACCLIMATE_MODEL", "a=one.safetensors, b=two.safetensors")
    settings = load_settings(port=None)
    assert settings.port == 9000
    assert settings.models == {"a": Path("one.safetensors"), "b": Path("two.safetensors")}
    assert load_settings(port=9001).port == 9001


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "many"), ("PORT", "70000"), ("MODEL", "a"), ("MODEL", "{"), ("BATCH_ROWS_MAX", "0"), ("DATADIR", "x")],
)
def test_wrong_variables_end_in_one_sentence(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """An unknown variable or a bad value is refused on one line."""
    monkeypatch.setenv(f"ACCLIMATE_{name}", value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert "\n" not in str(caught.value)


def test_kubernetes_service_links_are_not_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that Kubernetes sets for a service called acclimate do no harm."""
    monkeypatch.setenv("ACCLIMATE_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("ACCLIMATE_PORT_8000_TCP_ADDR", "10.0.0.1")
    assert load_settings().port == 8000


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "::", "example.org", ""])
def test_an_open_door_without_keys_is_refused(host: str) -> None:
    """Listening beyond this machine needs the operator's word, and the refusal says which."""
    with pytest.raises(ConfigurationError, match="ACCLIMATE_ALLOW_ANONYMOUS=1"):
        load_settings(host=host)
    assert load_settings(host=host, allow_anonymous=True).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_keys(host: str) -> None:
    """Addresses that only this machine reaches are served as they are."""
    assert is_loopback(host)
    assert load_settings(host=host).host == host


def test_every_setting_is_described() -> None:
    """No setting is without the sentence that the documentation shows."""
    assert not [name for name, field in Settings.model_fields.items() if not field.description]


def test_a_port_that_kubernetes_set_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """``tcp://…`` is the address of a service, not a port to listen on."""
    monkeypatch.setenv("ACCLIMATE_PORT", "tcp://10.0.0.7:8000")
    assert load_settings(data_dir=Path("unused")).port == 8000
