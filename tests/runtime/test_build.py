import torch

from distpre.runtime.build import compile_at_first_call


def test_a_decorated_function_is_compiled_when_it_is_first_called(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiled.append(options) or function)
    real = torch.compile
    with compile_at_first_call():

        @torch.compile
        def plain(x):
            return x + 1

        @torch.compile(dynamic=True)
        def told(x):
            return x + 2

    assert torch.compile is real and compiled == []
    assert (plain(1), told(1), told(2), plain.__name__) == (2, 3, 4, "plain") and compiled == [{}, {"dynamic": True}]


def test_a_module_is_compiled_at_once(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model, **options: compiled.append(model) or model)
    layer = torch.nn.Linear(1, 1)
    with compile_at_first_call():
        assert torch.compile(layer) is layer and compiled == [layer]
