"""What every fixture has in common: random weights, the files it is written to, and its check."""

import contextlib
import dataclasses
import json
import zlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

PINNED = {
    "torch": "2.13.0+cpu",
    "torchvision": "0.28.0",
    "transformers": "5.23.0",
    "safetensors": "0.8.0",
    "tokenizers": "0.23.3",
    "numpy": "2.4.6",
}


def define_missing_operators() -> None:
    """Declares the compiled operators that torchvision's import names.

    Its wheel is built for CUDA, so beside a CPU build of torch its library does not load. The
    models need none of those operators.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    KEPT.append(library)


KEPT: list[torch.library.Library] = []  # a library that is collected takes its operators along
define_missing_operators()

import safetensors.torch as st  # noqa: E402
import transformers  # noqa: E402

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

ROOT = Path(__file__).resolve().parent.parent / "tests" / "data"
ZOO = ROOT / "zoo"

Tensors = dict[str, torch.Tensor]


def check_versions() -> None:
    """Another version may round otherwise, so that every file changes for nothing."""
    found = {name: version(name) for name in PINNED}
    if found != PINNED:
        raise SystemExit(f"these fixtures are made with {PINNED}, but found {found}")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.backends.mkldnn.enabled = False  # its convolutions round more


@dataclasses.dataclass(frozen=True)
class Fixture:
    """One directory: a model, its inputs and what it must give for them.

    `save` writes a model and `load` reads it; `call` gives the outputs for the inputs.
    The loss is the sum of `output * loss_weight` over the outputs in `differentiate`.
    With `train`, what `call` gives in training mode is stored as well, with `step` also the loss there
    and its gradient.
    """

    family: str
    name: str
    note: str
    made_by: str
    build: Callable[[], torch.nn.Module]
    save: Callable[[torch.nn.Module, Path], None]
    load: Callable[[Path], torch.nn.Module]
    inputs: Callable[[np.random.Generator], dict[str, np.ndarray]]
    call: Callable[[torch.nn.Module, Tensors], Tensors]
    differentiate: tuple[str, ...] = ()
    train: bool = False
    step: bool = False
    seed: int = 0
    max_bytes: int = 165_000

    @property
    def directory(self) -> Path:
        return ZOO / self.family / self.name

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng([zlib.crc32(f"{self.family}/{self.name}".encode()), self.seed])


def ids(rng: np.random.Generator, vocabulary: int, *shape: int) -> np.ndarray:
    """Token ids from 1, since 0 is the padding, whose embedding PyTorch gives no gradient."""
    return rng.integers(1, vocabulary, shape).astype(np.int32)


def image(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def right_padding(batch: int, length: int, *real: int) -> np.ndarray:
    mask = np.zeros((batch, length), np.int32)
    for row, count in enumerate(real):
        mask[row, :count] = 1
    return mask


def _draw(
    rng: np.random.Generator, module: torch.nn.Module, name: str, shape: tuple[int, ...]
) -> np.ndarray:
    kind = type(module).__name__
    if "Norm" in kind and name == "weight":
        return rng.uniform(0.5, 1.5, shape)
    if name == "layer_scale_parameter":
        return rng.uniform(0.3, 1.0, shape)
    if len(shape) < 2:
        return rng.normal(0.8 if kind == "BatchNorm2d" else 0, 0.2, shape)
    if kind == "Embedding" and shape[0] > 60:
        # Tokens: large ones tied to the head would make a model repeat its last token for ever.
        return rng.normal(0, 0.15, shape)
    if kind == "Embedding" or name in ("cls_token", "position_embeddings"):
        return rng.normal(0, 0.7, shape)
    inputs_first = kind in ("Conv1D", "ConvTranspose2d")
    fan_in = shape[0] if inputs_first else int(np.prod(shape[1:]))
    return rng.normal(0, 1 / np.sqrt(fan_in), shape)


def randomise(model: torch.nn.Module, rng: np.random.Generator) -> None:
    """Weights and statistics none of which is 0 or 1, so that leaving one out shows."""
    seen = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                value = _draw(rng, module, name, tuple(parameter.shape))
                parameter.data = torch.from_numpy(value.astype(np.float32))
        if isinstance(module, torch.nn.BatchNorm2d):
            channels = module.num_features
            mean, variance = rng.normal(0, 0.3, channels), rng.uniform(0.5, 1.5, channels)
            module.running_mean = torch.from_numpy(mean.astype(np.float32))
            module.running_var = torch.from_numpy(variance.astype(np.float32))
            module.num_batches_tracked = torch.tensor(int(rng.integers(10, 99)))


def calibrate(model: torch.nn.Module, rng: np.random.Generator, images: np.ndarray) -> None:
    """Statistics in proportion to those that images have, as in a trained network.

    Otherwise signals fade with depth, and in channels that no image lights up weights do not count.
    The factors, and the bias in `_draw`, are such that every weight shows, and rounding does not.
    """

    def near(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3))
        shift = torch.from_numpy(rng.normal(0, 0.2, mean.shape).astype(np.float32))
        scale = torch.from_numpy(rng.uniform(1.5, 4.0, mean.shape).astype(np.float32))
        module.running_mean = mean + shift * variance.sqrt()
        size = variance + 0.5 * mean**2
        module.running_var = (size + 0.5 * size.mean()) * scale

    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    hooks = [module.register_forward_pre_hook(near) for module in norms]
    with torch.no_grad():
        model(torch.from_numpy(image(rng, 32, *images.shape[1:])))
    for hook in hooks:
        hook.remove()


def _as_torch(arrays: dict[str, np.ndarray], dtype: torch.dtype) -> Tensors:
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    return {name: t.to(dtype) if t.is_floating_point() else t.long() for name, t in tensors.items()}


def _named_gradients(fixture: Fixture, model: torch.nn.Module, scratch: Path) -> Tensors:
    """The gradients by the names in the file, which are not always those in the program."""
    values = {id(p): p.data for p in model.parameters()}
    for parameter in model.parameters():
        parameter.data = parameter.grad
    fixture.save(model, scratch)
    for parameter in model.parameters():
        parameter.data = values[id(parameter)]
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return {
        name: gradient
        for name, gradient in st.load_file(scratch / "model.safetensors").items()
        if not name.endswith(statistics)
    }


def _loss_weights(fixture: Fixture, arrays, outputs: Tensors) -> Tensors:
    rng = np.random.default_rng([1, *fixture.rng.integers(0, 9999, 2)])
    weights = {}
    for name in fixture.differentiate:
        # Divided so that gradients come out near 1, and 1e-5 means the same for all of them.
        weight = rng.standard_normal(outputs[name].shape) / outputs[name].numel() ** 0.5
        mask = arrays.get("attention_mask")
        if mask is not None and weight.shape[:2] == mask.shape:
            weight = weight * mask[..., None]  # what is at padding is nobody's concern
        weights[name] = torch.from_numpy(weight.astype(np.float32)).to(outputs[name].dtype)
    return weights


def _gradients(
    fixture: Fixture, model: torch.nn.Module, outputs: Tensors, weights: Tensors, scratch: Path
) -> Tensors:
    """The loss, the sum of outputs by their weights, and its gradient by each parameter."""
    loss = torch.zeros((), dtype=next(model.parameters()).dtype)
    for name, weight in weights.items():
        loss = loss + (outputs[name] * weight).sum()
    model.zero_grad()
    loss.backward()
    named = _named_gradients(fixture, model, scratch)
    return {"loss": loss.detach()} | {f"grad.{name}": value for name, value in named.items()}


def _results(fixture: Fixture, model: torch.nn.Module, arrays, scratch: Path) -> Tensors:
    """All that is compared: outputs, gradients, and what a step in training mode leaves behind."""
    model.eval()
    inputs = _as_torch(arrays, next(model.parameters()).dtype)
    outputs = fixture.call(model, inputs)
    results = {f"output.{name}": value.detach() for name, value in outputs.items()}
    if fixture.differentiate:
        weights = _loss_weights(fixture, arrays, outputs)
        results |= {f"loss_weight.{name}": weight for name, weight in weights.items()}
        results |= _gradients(fixture, model, outputs, weights, scratch)
    if fixture.train:
        model.train()
        outputs = fixture.call(model, inputs)
        for name in fixture.differentiate:
            results[f"train.output.{name}"] = outputs[name].detach()
        if fixture.step:
            step = _gradients(fixture, model, outputs, weights, scratch)
            results |= {f"train.{name}": value for name, value in step.items()}
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                results[f"train.{name}"] = buffer.detach().clone()
        model.eval()
    return {name: value.contiguous().clone() for name, value in results.items()}


def _compact(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.is_floating_point() else value.to(torch.int32)


def make(fixture: Fixture, scratch: Path) -> None:
    """Writes the directory of `fixture`."""
    directory = fixture.directory
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.iterdir():
        old.unlink()
    rng = fixture.rng
    model = fixture.build().eval()
    randomise(model, rng)
    arrays = fixture.inputs(rng)
    if "pixel_values" in arrays:
        calibrate(model, rng, arrays["pixel_values"])
    fixture.save(model, directory)
    with contextlib.suppress(FileNotFoundError):
        (directory / "generation_config.json").unlink()
    results = _results(fixture, model, arrays, scratch)
    io = {f"input.{name}": torch.from_numpy(array) for name, array in arrays.items()}
    io |= {name: _compact(value) for name, value in results.items()}
    st.save_file(io, directory / "io.safetensors", metadata={"format": "pt"})
    about = {
        "made_by": fixture.made_by,
        "note": fixture.note,
        "differentiated": list(fixture.differentiate),
    }
    (directory / "fixture.json").write_text(json.dumps(about, indent=2) + "\n")


def _distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative to the largest entry where that is above 1."""
    found, expected = found.double(), expected.double()
    if found.shape != expected.shape:
        raise ValueError(f"shapes differ: {tuple(found.shape)} and {tuple(expected.shape)}")
    if not expected.numel():
        return 0.0
    scale = max(1.0, expected.abs().max().item())
    return (found - expected).abs().max().item() / scale


def check(fixture: Fixture, scratch: Path) -> str:
    """Reads the directory as a stranger would, recomputes in both precisions, and compares."""
    directory = fixture.directory
    stored = st.load_file(directory / "io.safetensors")
    arrays = {
        name.removeprefix("input."): value.numpy()
        for name, value in stored.items()
        if name.startswith("input.")
    }
    worst = {}
    for dtype, limit in ((torch.float32, 1e-6), (torch.float64, 2e-6)):
        model = fixture.load(directory).to(dtype)
        results = _results(fixture, model, arrays, scratch)
        expected = {name: value for name, value in stored.items() if not name.startswith("input.")}
        unknown = results.keys() ^ expected.keys()
        if any(dtype == torch.float32 or not name.endswith(".new_tokens") for name in unknown):
            raise ValueError(f"{directory}: names differ: {unknown}")
        distances = {name: _distance(results[name], expected[name]) for name in results}
        name = max(distances, key=distances.__getitem__)
        if not distances[name] <= limit:
            raise ValueError(f"{directory}: {name} is off by {distances[name]} in {dtype}")
        worst[dtype] = distances[name]
    size = sum(file.stat().st_size for file in directory.iterdir())
    if size > fixture.max_bytes:
        raise ValueError(f"{directory} has {size} bytes")
    return (
        f"{fixture.family}/{fixture.name}: {size / 1000:.0f} kB, "
        f"off by {worst[torch.float32]:.1e} (float64: {worst[torch.float64]:.1e})"
    )
