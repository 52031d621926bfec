import pytest

from mutorch.errors import RegistryError
from mutorch.registry import Registry
from mutorch.utils import register_all_modules, register_modules


@pytest.fixture
def tables(monkeypatch):
    def use(models, datasets):
        monkeypatch.setattr(register_modules, "MODELS", Registry("models", builtins=models))
        monkeypatch.setattr(register_modules, "DATASETS", Registry("datasets", builtins=datasets))

    return use


@pytest.mark.parametrize("init_default_scope", [True, False])
def test_every_built_in_name_is_imported_and_listed(tables, init_default_scope):
    tables({"Linear": "torch.nn"}, {"Dataset": "torch.utils.data"})
    assert register_all_modules(init_default_scope) == ["Linear", "Dataset"]


@pytest.mark.parametrize("module", ["torch.nn", "absent_package"])
def test_a_wrong_table_entry_is_an_error(tables, module):
    tables({"Absent": module}, {})
    with pytest.raises(RegistryError, match=f"built-in 'Absent' of models .* from '{module}'"):
        register_all_modules()


def test_every_name_of_the_real_tables_can_be_imported():
    names = register_all_modules()
    assert {"OneShotMutableOP", "SearchableShuffleNetV2", "ChainNet", "Mutator", "ClutteredDigits"} <= set(names)
