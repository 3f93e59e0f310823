"""`python -m tests.shared.update_golden` keeps what was written until now and adds how it is written now."""

from tests.shared.golden import FOLDER, SAMPLES, text, versions, vocabulary


def update() -> list[str]:
    """Add a golden file for each message that is written in a new way; returns their names."""
    added: list[str] = []
    contents = {name: sample.written() for name, sample in SAMPLES.items()} | {"vocabulary": vocabulary()}
    for name, content in contents.items():
        known = versions(name)
        if not known or known[-1].read_text() != text(content):
            FOLDER.mkdir(parents=True, exist_ok=True)
            path = FOLDER / f"{name}.{len(known) + 1}.json"
            path.write_text(text(content))
            added.append(path.name)
    return added


if __name__ == "__main__":
    for file in update():
        print(file)
