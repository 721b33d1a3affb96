"""Training the cross-encoder: a listwise loss over one relevant passage and hard negatives."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .reranker_data import Group


def train_cross_encoder(
    start_from: Path,
    groups: Sequence[Group],
    *,
    epochs: int,
    max_minutes: float,
    max_tokens: int,
    learning_rate: float,
    batch_groups: int,
    threads: int,
    seed: int,
    on_step: Callable[[float, float], None],
) -> tuple[Any, Any]:
    """The trained (model, tokenizer), from the BERT folder `start_from`.

    The loss of a group is the softmax cross-entropy of its relevant passage (ListNet's top-one
    form: Cao et al., ICML 2007). Word vectors stay frozen: they are half of the weights, and a
    few thousand queries touch a fraction of them. The learning rate rises over the first tenth
    and falls linearly to zero; training ends with the last epoch or after `max_minutes`, and the
    rate follows whichever is nearer, so that an early end is still a proper one.
    `on_step(progress 0..1, loss)` is called after each step.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(start_from)
    model = AutoModelForSequenceClassification.from_pretrained(start_from, num_labels=1)
    model.base_model.embeddings.word_embeddings.weight.requires_grad_(False)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.01)
    half = _runs_bfloat16(torch)

    generator = random.Random(seed)
    steps = epochs * -(-len(groups) // batch_groups)
    started, step, average = time.monotonic(), 0, 0.0
    model.train()
    for _ in range(epochs):
        for batch in _batches(groups, batch_groups, generator):
            done = max(step / steps, (time.monotonic() - started) / 60 / max_minutes)
            if done >= 1:
                break
            for settings in optimizer.param_groups:
                settings["lr"] = learning_rate * min(done / 0.1 + 0.01, 1.0, (1 - done) / 0.9)
            inputs = tokenizer(
                [group.query for group in batch for _ in group.passages],
                [passage for group in batch for passage in group.passages],
                truncation="longest_first",
                max_length=max_tokens,
                padding=True,
                return_tensors="pt",
            )
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                logits = model(**inputs).logits
            scores = logits.float().view(len(batch), -1)
            target = torch.zeros(len(batch), dtype=torch.long)
            loss = torch.nn.functional.cross_entropy(scores, target)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            average = loss.item() if step == 1 else 0.95 * average + 0.05 * loss.item()
            on_step(done, average)
    model.eval()
    return model, tokenizer


def _batches(groups: Sequence[Group], size: int, generator: random.Random) -> list[Sequence[Group]]:
    """Shuffled batches of groups of similar length: padding is computed and thrown away."""
    shuffled = list(groups)
    generator.shuffle(shuffled)
    window = size * 16
    batches: list[Sequence[Group]] = []
    for start in range(0, len(shuffled), window):
        part = sorted(
            shuffled[start : start + window], key=lambda group: max(map(len, group.passages))
        )
        batches += [part[at : at + size] for at in range(0, len(part), size)]
    generator.shuffle(batches)
    return batches


def _runs_bfloat16(torch: Any) -> bool:
    """Whether this processor multiplies bfloat16 itself; emulated, it would be slower."""
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())


def load_trained(folder: Path) -> tuple[Any, Any]:
    """The (model, tokenizer) that training left in `folder`."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, logging

    logging.disable_progress_bar()
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    return model.eval(), AutoTokenizer.from_pretrained(folder)
