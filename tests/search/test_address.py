import pytest

from mutorch.errors import ConfigError
from mutorch.search.address import Address, is_address


@pytest.mark.parametrize(
    ("text", "shown", "secrets"),
    [
        ("postgresql://me:hush@host/db", "postgresql://me:***@host/db", ("hush",)),
        ("mysql+pymysql://me:h%40sh@host:3306/db", "mysql+pymysql://me:***@host:3306/db", ("h%40sh", "h@sh")),
        ("redis://:hush@host:6379/0", "redis://:***@host:6379/0", ("hush",)),
        ("postgresql://me:hu/s@h@host/db", "postgresql://me:***@host/db", ("hu/s@h",)),
        (
            "postgresql:///db?user=me&password=hush&host=/tmp",
            "postgresql:///db?user=me&password=***&host=/tmp",
            ("hush",),
        ),
        ("postgresql://me@host/db?sslpassword=hush", "postgresql://me@host/db?sslpassword=***", ("hush",)),
        ("sqlite:///trials.db#digits", "sqlite:///trials.db#digits", ()),
        ("journal:///shared/file.log", "journal:///shared/file.log", ()),
    ],
)
def test_an_address_is_shown_without_passwords(text, shown, secrets):
    address = Address.parse(text)
    assert str(address) == shown
    assert address.secrets == secrets
    assert not any(secret in repr(address) for secret in secrets)
    assert address.scrub(f"cannot reach {text.partition('#')[0]}, says {' and '.join(secrets)}").count("***") >= len(
        secrets
    )
    assert not any(secret in address.scrub(f"no {secret}") for secret in secrets)


def test_postgresql_has_a_driver_that_is_installed_with_the_extra():
    for scheme in ("postgresql", "postgres"):
        assert Address.parse(f"{scheme}://me@host/db").url == "postgresql+psycopg://me@host/db"
    assert Address.parse("postgresql+psycopg2://me@host/db").url == "postgresql+psycopg2://me@host/db"
    assert Address.parse("postgresql+psycopg2://me@host/db").scheme == "postgresql"


def test_the_study_and_other_options_stand_behind_the_address():
    assert Address.parse("sqlite:///a.db").study == ""
    assert Address.parse("sqlite:///a.db#my%20digits").study == "my digits"
    address = Address.parse("sqlite:///a.db#study=digits&patience=5")
    assert (address.study, address.patience, address.url) == ("digits", 5.0, "sqlite:///a.db")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "sqlite:///a.db#name=digits",
            "sqlite:///a.db#name=digits has the option 'name'; .*allowed: 'study', 'patience'",
        ),
        ("sqlite:///a.db#patience=soon", "patience is a number of seconds above 0, got 'soon'"),
        ("sqlite:///a.db#patience=-1", "patience is a number of seconds above 0, got '-1'"),
        ("postgresql://me:hu#sh@host/db", "^postgresql://...: a '#' in a password is written as %23$"),
        ("run.jsonl", "looks like postgresql://user@host/db"),
    ],
)
def test_an_address_that_cannot_be_read_is_an_error_without_passwords(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Address.parse(text)
    assert "hu" not in str(caught.value)


def test_files_are_no_addresses(tmp_path):
    assert not any(
        is_address(log) for log in (None, tmp_path / "run.jsonl", "run.jsonl", "runs/a:b.jsonl", "C:\\run.jsonl")
    )
