"""Settings come from the environment, or from the files that Docker and Kubernetes mount."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SHOW = """
import json
from pydantic_settings import SettingsConfigDict
from services.chassis import ServiceSettings

class Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="OWN_")
    database_url: str = "default"
    broker_url: str = "default"

print(json.dumps(Settings().model_dump(include={"database_url", "broker_url"})))
"""


def shown(**environment: str) -> dict[str, str]:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", SHOW],
        env={"PYTHONPATH": str(Path(__file__).parents[3]), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(run.stdout))


def test_a_setting_may_lie_in_a_file_and_a_variable_wins_over_it(tmp_path: Path) -> None:
    (tmp_path / "own_database_url").write_text("from the file\n")
    (tmp_path / "own_broker_url").write_text("from the file\n")
    found = shown(SECRETS_DIR=str(tmp_path), OWN_BROKER_URL="from the variable")
    assert found == {"database_url": "from the file", "broker_url": "from the variable"}


def test_without_the_folder_the_defaults_hold_and_nothing_is_warned_of(tmp_path: Path) -> None:
    found = shown(SECRETS_DIR=str(tmp_path / "none"))
    assert found == {"database_url": "default", "broker_url": "default"}
