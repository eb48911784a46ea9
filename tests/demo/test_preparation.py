from pathlib import Path

import pytest

from demo.__main__ import invitation
from demo.addresses import ROOT, Addresses, DemoError
from demo.preparation import MARKER, Demo, inherited_environment, make_folder
from demo.sample_brand.scenarios import Scenario


def test_a_folder_of_an_earlier_demo_is_made_afresh(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    make_folder(folder)
    (folder / "product.sqlite3").touch()
    make_folder(folder)
    assert [path.name for path in folder.iterdir()] == [MARKER]
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_somebody_else_made_is_never_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(DemoError, match="not made by the demo"):
        make_folder(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_settings_of_the_person_do_not_reach_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://production.example/orders")
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "somebody.settings")
    assert not {"DATABASE_URL", "DJANGO_SETTINGS_MODULE"} & inherited_environment().keys()


def test_secrets_differ_each_time_and_stay_out_of_the_repr(tmp_path: Path) -> None:
    one, two = Demo(Addresses(), tmp_path), Demo(Addresses(), tmp_path)
    assert one.product_environment()["SECRET_KEY"] != two.product_environment()["SECRET_KEY"]
    assert one.admin_password not in repr(one)
    assert one.client_secret not in repr(one)


def test_the_shipped_file_holds_no_secret_and_the_default_addresses() -> None:
    text = (ROOT / "demo" / "acme.toml").read_text()
    assert "client_secret =" not in text
    assert Addresses().brand in text


def test_the_invitation_names_every_scenario_and_a_line_to_paste(tmp_path: Path) -> None:
    demo = Demo(Addresses(), tmp_path)
    told = invitation(demo, "cd_key")
    assert ", ".join(Scenario) in " ".join(told.split())
    assert 'for six digits to type, choose "… with a code"' in told
    assert "\n  export BASE=http://localhost:8000/api/v1 KEY=cd_key ORDERS=http://127.0.0.1:8001/api/orders\n" in told
