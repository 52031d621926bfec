import json
import sys
from pathlib import Path

import pytest

from mutorch.errors import MissingExtraError
from mutorch.reporting import MLflowLogger

# MLflow's own use of SQLAlchemy and of its store.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow")
    return f"sqlite:///{folder / 'mlflow.db'}"


@pytest.fixture
def client(store, tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)  # where MLflow keeps files, unless told otherwise
    return MlflowClient(store)


def test_a_search_is_a_run_with_metrics_parameters_and_files(store, client, make_history, tmp_path):
    history = make_history(6, ("accuracy", "-macs"))
    page = tmp_path / "report.html"
    for file in (page, page.with_name("progress.png")):
        file.write_bytes(b"a report")
    log = tmp_path / "run.jsonl"
    log.write_text("{}\n")
    with MLflowLogger(store, experiment="digits", run_name="first") as logger:
        for trial in history.trials[2:]:
            logger(trial, 6)
        logger.finish(history, report=page, log=log)
    run = client.get_run(logger.run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "first")
    assert client.get_experiment(run.info.experiment_id).name == "digits"
    metrics = client.get_metric_history(logger.run_id, "score")
    assert sorted((one.step, one.value) for one in metrics) == [(t.index, pytest.approx(t.score)) for t in history]
    assert run.data.params["strategy"] == "evolution"
    assert run.data.params["budget/macs"] == "[null, 5000000.0]"
    assert run.data.metrics["costs/macs"] in {t.costs.macs for t in history}
    names = {one.path for one in client.list_artifacts(logger.run_id)}
    assert {"report.html", "progress.png", "run.jsonl", "best.json"} <= names
    best = Path(client.download_artifacts(logger.run_id, "best.json")).read_text()
    assert json.loads(best) == history.best.architecture


def test_an_experiment_is_found_again(store, client):
    ids = []
    for _ in range(2):
        with MLflowLogger(store, experiment="again") as logger:
            ids.append(client.get_run(logger.run_id).info.experiment_id)
    assert ids[0] == ids[1]


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_search_that_ends_with_an_error_is_marked(store, client, make_history, error, status):
    logger = MLflowLogger(store)

    def search():
        with logger:
            logger(make_history(1).trials[0], 5)
            raise error

    with pytest.raises(error):
        search()
    assert client.get_run(logger.run_id).info.status == status
    assert len(client.get_metric_history(logger.run_id, "score")) == 1


def test_without_the_extra_the_install_line_is_the_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingExtraError, match=r'pip install "mutorch\[mlflow\]"'):
        MLflowLogger("sqlite:///x.db")
