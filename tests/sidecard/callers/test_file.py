"""The grammar of agents/callers.yaml."""

import pytest

from sidecard.callers import CallersFile
from sidecard.errors import ConfigurationError


@pytest.mark.parametrize(
    "content",
    [None, "callers: [", "callers: {desk: {sidecars: true}}", "other: {}", "", "callers: {desk: {grants: [x]}}"],
)
def test_a_file_that_can_not_be_read_says_which_and_why(tmp_path, content):
    """ConfigurationError in one line with the path; a misspelt word is an error, not a caller without rights."""
    path = tmp_path / "callers.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"callers\.yaml is not a list of callers: .") as caught:
        CallersFile.read(path)
    assert "\n" not in str(caught.value)
