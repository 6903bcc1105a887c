"""The Hub: names, cache, what is said without a connection, what is published. No test needs a connection."""

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, RepositoryNotFoundError
from model_files import read_prior
from safetensors.torch import load_file

from workbench.models import DDPM, DDPMConfig, VPNoise, save_prior
from workbench.models.hub import fetch, push

COMMIT = "a" * 40


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    net = DDPM(DDPMConfig(width=32, multipliers=(1,), blocks=1, attention_levels=()))
    save_prior(
        VPNoise(net), tmp_path / "mine.safetensors", card={"summary": "a test | prior", "steps": 7, "log": [1, 2]}
    )
    return tmp_path / "mine.safetensors"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    """An empty cache, and no connection."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


def put(cache: Path, repository: str, name: str, content: bytes) -> None:
    """A file as the Hub's own cache has it."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    target = folder / "snapshots" / COMMIT / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(COMMIT)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        *((f"hf:{name}", "expected USER/NAME") for name in ("name", "a b/c", "user/", "https://x.y/z")),
        ("diffusers:nowhere/at/all/here", "no folder nowhere/at/all/here.*a repository of the Hub is USER/NAME"),
        ("diffusers:nowhere", "no folder nowhere: expected USER/NAME"),
    ],
)
def test_malformed_names(source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_prior(source)


def test_a_cached_repository_loads_without_a_connection(file: Path, cache: Path, monkeypatch) -> None:
    put(cache, "user/name", "model.safetensors", file.read_bytes())
    prior = read_prior("hf:user/name")
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(prior(x, 0.1), read_prior(file)(x, 0.1))
    (local := cache.parent / "local").mkdir()
    shutil.copy(file, local / "model.safetensors")
    assert torch.equal(read_prior(local)(x, 0.1), prior(x, 0.1))
    assert (prior.name, prior.source["repository"]) == ("name", "user/name")
    torch.save(prior.net.state_dict(), cache.parent / "plain.ckpt")
    put(cache, "user/other", "weights/plain.ckpt", (cache.parent / "plain.ckpt").read_bytes())
    other = read_prior("hf:user/other/weights/plain.ckpt")
    # Weights at another place of the file are at other addresses, and vectorised sums round otherwise.
    torch.testing.assert_close(other(x, 0.1), prior(x, 0.1), rtol=0, atol=1e-6)
    expected = cache / "models--user--name" / "snapshots" / COMMIT / "model.safetensors"
    assert fetch("user/name") == fetch("user/name@main") == expected
    with pytest.raises(ValueError, match="is not on this machine"):
        fetch("user/name@v1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    fails(monkeypatch, 503)  # while the Hub is out of order the cache does
    assert read_prior("hf:user/name").source["repository"] == "user/name"
    with pytest.raises(ValueError, match=r"model\.safetensors of user/third is not on this machine"):
        read_prior("hf:user/third")


def fails(monkeypatch, code: int) -> None:
    """The Hub answers with this error, whatever it is asked."""

    def refuse(*_, **__):
        response = SimpleNamespace(headers={}, request=None, status_code=code)
        raise (RepositoryNotFoundError if code == 404 else HfHubHTTPError)(str(code), response=response)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)


@pytest.mark.parametrize("source", ["hf:user/name", "diffusers:user/name"])
def test_what_is_said_without_a_repository_and_without_a_connection(cache: Path, monkeypatch, source: str) -> None:
    message = "user/name is not on this machine and the Hub cannot be reached: .* path"
    with pytest.raises(ValueError, match=message) as e:
        read_prior(source)
    assert str(cache) in str(e.value)
    assert "\n" not in str(e.value)
    # A real request, to a port of this machine where nothing listens: the answer comes at once.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.hf_api, "ENDPOINT", "http://127.0.0.1:9", raising=False)
    begun = time.perf_counter()
    with pytest.raises(ValueError, match="the Hub cannot be reached"):
        read_prior(source)
    assert time.perf_counter() - begun < 10
    fails(monkeypatch, 404)
    with pytest.raises(ValueError, match="no repository user/name on the Hub, or it is private"):
        read_prior(source)


def answer(monkeypatch, *names: str) -> None:
    """The Hub lists these files, whatever it is asked."""
    info = SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: info)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["model_index.json", "unet/config.json"], "not a repository of this package: for diffusers, diffusers:user/n"),
        (["a.pth", "b.ckpt"], r"has no file model\.safetensors; it has a\.pth, b\.ckpt: name one, as hf:user"),
        (["README.md"], r"user/name has no file model\.safetensors$"),
    ],
)
def test_repositories_of_something_else(monkeypatch, names: list[str], message: str) -> None:
    answer(monkeypatch, *names)
    with pytest.raises(ValueError, match=message):
        read_prior("hf:user/name")


def test_of_diffusers_repositories_the_configuration_is_judged_first(monkeypatch, tmp_path: Path) -> None:
    """Of weights in two formats one is fetched, at the commit of the configuration; of a model of no use, none."""
    pytest.importorskip("diffusers", reason="needs the extra 'diffusers'")
    from workbench.models.diffusers_export import save_diffusers

    net = DDPM(DDPMConfig(width=32, multipliers=(1,), blocks=1, attention_levels=()))
    save_diffusers(VPNoise(net), tmp_path / COMMIT)
    folder, weights = tmp_path / COMMIT / "unet", "unet/diffusion_pytorch_model.safetensors"
    (tmp_path / COMMIT / weights).rename(tmp_path / "weights")
    answer(monkeypatch, "unet/config.json", "unet/diffusion_pytorch_model.bin", weights)
    asked = []

    def configs(repository, *, revision, allow_patterns, local_files_only):
        asked.append((repository, revision, *allow_patterns))
        return str(tmp_path / COMMIT)

    def download(repository, name, *, revision, local_files_only):
        asked.append((repository, revision, name))
        shutil.copy(tmp_path / "weights", tmp_path / COMMIT / name)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", configs)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    prior = read_prior("diffusers:user/name@v2")
    assert prior.name == "name"
    assert asked == [("user/name", "v2", "*.json"), ("user/name", COMMIT, weights)]

    (tmp_path / COMMIT / weights).unlink()
    answer(monkeypatch, "unet/config.json")
    with pytest.raises(ValueError, match=r"user/name: no weights: expected unet/diffusion.*\.bin"):
        read_prior("diffusers:user/name")
    asked.clear()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"in_channels": 4}))
    with pytest.raises(ValueError, match="user/name: it takes 4 channels"):
        read_prior("diffusers:user/name")
    assert asked == [("user/name", None, "*.json")]


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_cached_diffusers_repository_loads_without_a_connection(file: Path, cache: Path, kind: str) -> None:
    """As a download leaves it: the list of all files of the repository, of which only some are there."""
    pytest.importorskip("diffusers", reason="needs the extra 'diffusers'")
    from workbench.models.diffusers_export import save_diffusers

    made, weights = cache.parent / "made", "unet/diffusion_pytorch_model.safetensors"
    save_diffusers(read_prior(file), made)
    if kind == "bin":
        torch.save(load_file(made / weights), (made / weights).with_suffix(".bin"))
        (made / weights).unlink()
    names = [path.relative_to(made).as_posix() for path in made.rglob("*.*")]
    for name in names:
        put(cache, "user/name", name, (made / name).read_bytes())
    # The real function of huggingface_hub 2; version 1 keeps no list.
    lists = pytest.importorskip("huggingface_hub._tree_cache")
    entry = lists.TreeCacheEntry(size=1, blob_id="b", lfs_sha256=None, lfs_size=None, xet_hash=None)
    listed = [*names, "images/sample.png", "unet/diffusion_pytorch_model.fp16.safetensors"]
    lists.write_tree_cache(str(cache / "models--user--name"), COMMIT, dict.fromkeys(listed, entry))
    prior = read_prior("diffusers:user/name")
    assert prior.name == "name"
    assert prior.card["source"] == "user/name"
    assert prior.source["file"].endswith(kind)


def test_push_publishes_the_file_and_its_card_in_one_commit(file: Path, monkeypatch) -> None:
    done = {}
    api = huggingface_hub.HfApi
    monkeypatch.setattr(api, "whoami", lambda self: {"name": "user"})
    monkeypatch.setattr(api, "create_repo", lambda self, name, **settings: done.update(repo=name, **settings))

    def commit(self, name, operations, *, commit_message):
        done.update(files={o.path_in_repo: o.path_or_fileobj for o in operations}, message=commit_message)

    monkeypatch.setattr(api, "create_commit", commit)
    assert push(file, "user/name", private=True, message="first").endswith("/user/name")
    files = done.pop("files")
    assert done == {"repo": "user/name", "private": True, "exist_ok": True, "message": "first"}
    assert files["model.safetensors"] == str(file)
    card = files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: restoration-workbench\n")
    for part in ('load_prior("hf:user/name")', "a test | prior", "| steps | 7 |", '"log": ['):
        assert part in card


def test_push_refuses_before_it_talks_to_anybody(file: Path, tmp_path: Path, monkeypatch) -> None:
    def refused(message: str, file: Path = file, name: str = "user/name", error: type[Exception] | None = None) -> None:
        def who(self):
            raise error

        monkeypatch.setattr(huggingface_hub.HfApi, "whoami", who)
        with pytest.raises(ValueError, match=message):
            push(file, name)

    torch.save({"a": torch.zeros(1)}, tmp_path / "plain.pth")
    refused(r"`workbench convert .*plain.pth --to model.safetensors` makes one", tmp_path / "plain.pth")
    refused("expected USER/NAME", name="name")
    refused("expected USER/NAME to publish to", name="user/name/model.safetensors")
    refused("not logged in to the Hub: log in with `hf auth login`", error=LocalTokenNotFoundError)
    refused("user/name cannot be published: the Hub cannot be reached", error=ConnectionError)
