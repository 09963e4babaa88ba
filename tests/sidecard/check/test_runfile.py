"""dapr.yaml."""

import pytest

FILE = "dapr.yaml"


def app(name, **changes):
    """Changes an app's entry; None removes the field."""

    def how(document):
        entry = next(entry for entry in document["apps"] if entry["appID"] == name)
        for key, value in changes.items():
            if value is None:
                del entry[key]
            else:
                entry[key] = value

    return how


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        (app("flights", metricsPort=None), "app 'flights' has no metricsPort"),
        (app("flights", metricsPort=9503), "port 9503 is both metricsPort of 'expenses' and metricsPort of 'flights'"),
        (
            app("flights", configFilePath="components/access/expenses.yaml"),
            "app 'flights' has not the access rules components/access/flights.yaml",
        ),
        (app("flights", command=["python", "-m", "agents.expenses"]), "app 'flights' does not run agents/flights"),
        (lambda d: d["common"].update(resourcesPaths=["components"]), "sidecars do not load resiliency/"),
        (lambda d: d["common"].pop("maxBodySize"), "daprd refuses large requests before the apps can answer them"),
    ],
)
def test_one_disagreement_is_one_finding(project, how, problem):
    """Ports, rules and commands are each app's own."""
    project.change(FILE, how)
    assert project.findings() == [(FILE, problem)]


def test_an_agent_missing_from_the_run_file_is_found(project):
    """A folder of agents/ without an app-id runs nowhere."""
    project.change(FILE, lambda d: d.update(apps=[a for a in d["apps"] if a["appID"] != "flights"]))
    assert (FILE, "has no app 'flights', but agents/flights exists") in project.findings()


def test_an_app_without_a_folder_is_found(project):
    """The app-id is the folder's name."""
    project.change(FILE, app("flights", appID="flight"))
    assert (FILE, "app 'flight' has no folder agents/flight") in project.findings()


def test_an_agent_without_grpc_is_found(project):
    """Every agent serves all three bindings."""
    project.change(FILE, app("flights", env=None))
    assert (FILE, "agent 'flights' serves no gRPC") in project.findings()


def test_an_app_without_a_port_is_found(project):
    """A sidecar without an app is only one that has no command."""
    project.change(FILE, app("flights", appPort=None))
    found = project.findings()
    assert (FILE, "app 'flights' has no appPort") in found
    assert not [problem for _, problem in found if "desk" in problem]
