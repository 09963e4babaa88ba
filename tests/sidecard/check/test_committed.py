"""Secrets in committed files."""

import pytest


def test_keys_that_git_would_take_are_found(project):
    """The bootstrap's folder is ignored."""
    project.write(".gitignore", "/data/\n")
    assert project.findings() == [(".gitignore", "git would take the keys in .sidecard/")]


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN " + "EC PRIVATE KEY-----",
        'KEY = {"kty": "EC", "d": "' + "a" * 43 + '"}',
        "DATABASE = 'host=db password=" + "hunter2'",
    ],
)
def test_a_secret_in_a_file_is_found(project, text):
    """Private keys and passwords, wherever they stand."""
    project.write("agents/days.py", f"# {text}\n")
    assert project.findings() == [("agents/days.py", "line 1 holds a secret")]


def test_a_secret_object_with_values_is_found(project):
    """Secrets are created in the cluster."""
    file = "k8s/base/namespace.yaml"
    secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: flights}\nstringData: {key: x}\n"
    project.write(file, (project.root / file).read_text() + secret)
    assert project.findings() == [(file, "holds the values of the Secret 'flights'")]


def test_a_secret_in_an_environment_is_found(project):
    """Also in the list form that Kubernetes has."""
    file = "k8s/base/flights.yaml"
    added = {"name": "DB_PASSWORD", "value": "x"}
    project.change(file, lambda d: d["spec"]["template"]["spec"]["containers"][0]["env"].append(added), "Deployment")
    assert project.findings() == [(file, "DB_PASSWORD is written out")]
