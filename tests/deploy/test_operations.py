"""docs/operations.md names every setting, with the default that it has."""

import re

from tests.deploy.dockerfile import image_environment
from tests.deploy.manifests import ROOT
from unveil.service.settings import PREFIX, Settings

TEXT = (ROOT / "docs" / "operations.md").read_text()


def _documented() -> dict[str, str]:
    """The table of settings: variable to default, as written."""
    return dict(re.findall(rf"^\| `({PREFIX}\w+)` \| (.*?) \|", TEXT, flags=re.MULTILINE))


def test_every_setting_is_documented_and_nothing_else() -> None:
    assert list(_documented()) == [f"{PREFIX}{name.upper()}" for name in Settings.model_fields]


def test_the_documented_defaults_are_the_settings_own() -> None:
    documented = {name: text.strip().strip("`") for name, text in _documented().items()}
    for name, field in Settings.model_fields.items():
        if name not in ("artifacts", "checkpoints"):  # which are folders
            default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
            assert documented[f"{PREFIX}{name.upper()}"] == default, name


def test_what_the_image_sets_is_documented() -> None:
    for name in ("UNVEIL_HOST", "UNVEIL_CHECKPOINTS"):
        (row,) = re.findall(rf"^\| `{name}` .*$", TEXT, flags=re.MULTILINE)
        assert f"the image sets `{image_environment()[name]}`" in row
