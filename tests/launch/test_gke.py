"""launch/gke.yaml against the schema of the API and the programs that it calls."""

import copy
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

jsonschema = pytest.importorskip("jsonschema")
yaml = pytest.importorskip("yaml")

REPOSITORY = Path(__file__).resolve().parents[2]
MANIFEST = REPOSITORY / "launch" / "gke.yaml"


@pytest.fixture(scope="module")
def documents():
    return {document["kind"]: document for document in yaml.safe_load_all(MANIFEST.read_text())}


def strict(schema):
    """As `kubectl apply` takes it: a field that the schema does not know is an error."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed["properties"] = {k: strict(v) for k, v in schema["properties"].items()}
        if schema["properties"] and "additionalProperties" not in schema:
            closed["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        closed.pop("type", None)
    return closed


@pytest.fixture(scope="module")
def schemas():
    """Of both kinds: the JobSet's definition has that of a Job's spec inside."""
    crd = json.loads((REPOSITORY / "third_party" / "jobset_crd.json").read_text())
    jobset = strict(crd["schema"])
    job = copy.deepcopy(jobset)
    template = jobset["properties"]["spec"]["properties"]["replicatedJobs"]["items"]["properties"]
    job["properties"]["spec"] = template["template"]["properties"]["spec"]
    return {"JobSet": jobset, "Job": job}


def errors(document, schema):
    return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(document)]


@pytest.mark.parametrize("kind", ["Job", "JobSet"])
def test_it_follows_the_schema(documents, schemas, kind):
    assert errors(documents[kind], schemas[kind]) == []


@pytest.mark.parametrize(
    "kind,path,value",
    [
        ("Job", ("spec", "completionMod"), "Indexed"),
        ("Job", ("spec", "completions"), "24"),
        ("Job", ("spec", "template", "spec", "containers", 0, "arg"), []),
        ("JobSet", ("spec", "failurePolicy", "rules", 0, "action"), "Restart"),
        ("JobSet", ("spec", "replicatedJobs", 0, "replica"), 4),
        ("JobSet", ("spec", "replicatedJobs", 0, "template", "spec", "parallelism"), "4"),
    ],
)
def test_the_schema_refuses_what_is_wrong(documents, schemas, kind, path, value):
    broken = copy.deepcopy(documents[kind])
    inner = broken
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    assert len(errors(broken, schemas[kind])) == 1


def test_the_core_kind_follows_kubernetes_own_schema(documents):
    validate = pytest.importorskip("kubernetes_validate")  # 72 MB, so not in the extra [test]
    validate.validate(documents["Job"], "1.29", strict=True)


def pod(document):
    job = document["spec"]
    if document["kind"] == "JobSet":
        job = job["replicatedJobs"][0]["template"]["spec"]
    return job, job["template"]["spec"]["containers"][0]


def test_indices_and_counts_belong_together(documents):
    job, container = pod(documents["Job"])
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert environment["JOB_COMPLETIONS"] == str(job["completions"])
    assert job["completionMode"] == "Indexed" and "--cells=auto" in container["args"]
    job, container = pod(documents["JobSet"])
    replicas = documents["JobSet"]["spec"]["replicatedJobs"][0]["replicas"]
    assert f"--cells=$(PART)/{replicas}" in container["args"]
    assert "PART" in {entry["name"] for entry in container["env"]}
    assert job["completions"] == job["parallelism"]  # all hosts of a cell at once


@pytest.mark.parametrize("kind", ["Job", "JobSet"])
def test_its_flags_are_those_of_the_program(documents, kind):
    program = (REPOSITORY / "chinchilla_jax" / "sweep.py").read_text()
    for argument in pod(documents[kind])[1]["args"]:
        name = re.match(r"--(\w+)=", argument)[1]
        assert f'"{name}"' in program or name == "config"
        if name == "config":
            assert (REPOSITORY / argument.removeprefix("--config=")).exists()


def test_the_line_that_substitutes_leaves_no_placeholder():
    comment = re.search(r"#   (sed .*?)\| kubectl", MANIFEST.read_text(), re.DOTALL)[1]
    command = shlex.split(comment.replace("\\\n#", " "))
    text = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    for document in yaml.safe_load_all(text):
        container = pod(document)[1]
        assert container["image"].endswith("/chinchilla_jax:1")
        assert any(a.startswith("--workdir=gs://my-bucket/") for a in container["args"])


def test_a_stop_is_tried_again_and_a_mistake_is_not(documents):
    """The exit statuses of the program, as the pods' failure policy reads them."""
    from chinchilla_jax.program import EXIT_INTERRUPTED, EXIT_USER_ERROR

    rules = documents["Job"]["spec"]["podFailurePolicy"]["rules"]
    by_status = {
        status: rule["action"]
        for rule in rules
        if "onExitCodes" in rule
        for status in rule["onExitCodes"]["values"]
    }
    assert by_status == {EXIT_INTERRUPTED: "Ignore", EXIT_USER_ERROR: "FailIndex"}


def test_the_image_has_no_shell_around_the_program():
    lines = (REPOSITORY / "launch" / "Dockerfile").read_text().splitlines()
    assert 'ENTRYPOINT ["python", "-m", "chinchilla_jax.sweep"]' in lines
