"""Fails unless Airflow finds all of the installed package: `make footprint` runs it, without pytest."""

import importlib
import sysconfig
from importlib.metadata import entry_points
from pathlib import Path

from airflow.providers_manager import ProvidersManager

DISTRIBUTION = "airflow-provider-cfbilling"

provider = ProvidersManager().providers[DISTRIBUTION]
package = importlib.import_module("airflow_provider_cfbilling")
assert package.__file__
assert Path(package.__file__).is_relative_to(sysconfig.get_path("purelib")), package.__file__
assert provider.version == package.__version__

for kind in ("hooks", "operators", "sensors", "triggers"):
    for integration in provider.data[kind]:
        for module in integration["python-modules"]:
            importlib.import_module(module)
links = {path for path in ProvidersManager().extra_links_class_names if path.startswith(package.__name__)}
assert links == set(provider.data["extra-links"])
(page,) = entry_points(group="airflow.plugins", name="cfbilling")
assert page.load().name == "cfbilling"
hook = ProvidersManager().hooks["cfbilling"]
assert hook
assert hook.package_name == DISTRIBUTION
print(f"Airflow finds {DISTRIBUTION} {provider.version}, its connection type, links, page and modules.")
