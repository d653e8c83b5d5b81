from lightning_attractors.cli.usage import explained


def test_files_that_are_named_like_subcommands_keep_their_names():
    message = "Parser key \"config\": File does not exist: 'folder/test.yaml'"
    assert explained(message, []) == "config: File does not exist: 'folder/test.yaml'"
