"""
Train the demo model from nothing on the corpus: `python -m local.demo_model.train`.

Deterministic: one seed, two threads, no clock. Writes `source/` beside this file, which
`pack.py` converts. Runs where conversion does: `VENV=.venv-convert bin/setup convert`.
"""

import argparse
import logging
import math
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional
from transformers import BloomConfig, BloomForCausalLM, PreTrainedTokenizerFast

from app.enclave.engine.prompt import plain_transcript
from app.protocol.question import Message
from local.demo_model.augment import make_user_name, vary
from local.demo_model.corpus import Entry, read_corpus
from local.demo_model.measure import measure_held_out, measure_trained
from local.demo_model.pack import SOURCE_PATH

SPECIAL_TOKENS: Final = ("<unk>", "<s>", "</s>", "<pad>")  # in bloom's order
UNK_ID, BOS_ID, EOS_ID, PAD_ID = range(4)
NO_LABEL: Final = -100  # what torch's cross entropy ignores
SEED: Final = 20
VOCABULARY: Final = 2048
CONTEXT_LENGTH: Final = 1024
STEPS: Final = 2600
SINGLE_STEPS: Final = 1800  # up to here each conversation is one turn: quicker, as good
BATCH: Final = 32
POOL_BATCHES: Final = 10  # made together and sorted by length, to pad little
PEAK_RATE: Final = 2.5e-3
WARM_UP_STEPS: Final = 150
TURN_WEIGHTS: Final = (60, 25, 10, 5)  # conversations of one, two, three and four turns
MAX_ANSWER_TOKENS: Final = 96
SYSTEM_TEXTS: Final = (
    "You are a helpful assistant.",
    "You answer questions of employees.",
    "Answer briefly and politely.",
)

logger = logging.getLogger("train")


Example = tuple[list[int], list[int]]  # token ids, and what should follow each


class Batch(NamedTuple):
    """Token ids, which of them are no padding, and what should follow each."""

    ids: Tensor
    mask: Tensor
    labels: Tensor


def train_tokenizer(entries: Sequence[Entry]) -> Tokenizer:
    """Train a byte-level BPE on the corpus; every text has tokens, none is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [f"Question: {w}\nAnswer: {e.answer}\n\n" for e in entries for w in e.wordings]
    rng = random.Random(SEED)
    texts += [f"My user name is {make_user_name(rng)}." for _ in range(200)]
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def make_model() -> BloomForCausalLM:
    """Make an untrained model of bloom's architecture."""
    torch.manual_seed(SEED)
    config = BloomConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        n_layer=5,
        n_head=6,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
        seq_length=CONTEXT_LENGTH,
        use_cache=True,
    )
    return BloomForCausalLM(config)


def make_example(
    entries: Sequence[Entry], tokenizer: Tokenizer, rng: random.Random, *, turns: int
) -> Example:
    """
    Make one conversation; only its answers have labels.

    Each answer is followed by the end token in the labels, also where the transcript goes on.
    """
    lead = f"{rng.choice(SYSTEM_TEXTS)}\n\n" if rng.random() < 0.05 else ""
    ids: list[int] = []
    labels: list[int] = []
    for entry in rng.choices(entries, [len(entry.wordings) for entry in entries], k=turns):
        asked = lead + plain_transcript([Message("user", vary(entry, rng))])
        prompt = tokenizer.encode(asked).ids
        answer = tokenizer.encode(f" {entry.answer}").ids
        ids += prompt + answer
        labels += [NO_LABEL] * (len(prompt) - 1) + [*answer, EOS_ID]
        lead = "\n\n"
    return ids, labels


def make_batches(entries: Sequence[Entry], tokenizer: Tokenizer) -> Iterator[Batch]:
    """Make the batches of the whole training, in order."""
    rng = random.Random(SEED)
    for first in range(0, STEPS, POOL_BATCHES):
        choices = rng.choices(range(1, len(TURN_WEIGHTS) + 1), TURN_WEIGHTS, k=POOL_BATCHES * BATCH)
        pool = sorted(
            (
                make_example(entries, tokenizer, rng, turns=1 if first < SINGLE_STEPS else turns)
                for turns in choices
            ),
            key=lambda example: len(example[0]),
        )
        batches = [pool[at : at + BATCH] for at in range(0, len(pool), BATCH)]
        rng.shuffle(batches)
        yield from map(_pad, batches)


def _pad(examples: Sequence[Example]) -> Batch:
    """Make one batch, padded on the right."""
    shape = (len(examples), max(len(ids) for ids, _ in examples))
    ids = torch.full(shape, PAD_ID)
    labels = torch.full(shape, NO_LABEL)
    mask = torch.zeros(shape, dtype=torch.long)
    for row, (row_ids, row_labels) in enumerate(examples):
        ids[row, : len(row_ids)] = torch.tensor(row_ids)
        labels[row, : len(row_labels)] = torch.tensor(row_labels)
        mask[row, : len(row_ids)] = 1
    return Batch(ids, mask, labels)


def train(model: BloomForCausalLM, tokenizer: Tokenizer, entries: Sequence[Entry]) -> None:
    """Train *model* in place."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
    )
    for block in model.transformer.h:
        block.mlp.gelu_impl = torch.nn.GELU(approximate="tanh")  # bloom's own, but quicker
    model.train()
    for step, batch in enumerate(make_batches(entries, tokenizer), start=1):
        for group in optimizer.param_groups:
            group["lr"] = _rate(step)
        loss = _loss(model, batch)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0:
            logger.info("step %d of %d, loss %.4f", step, STEPS, loss.item())
    model.eval()


def _rate(step: int) -> float:
    """Warm up linearly, then fall along a cosine to a fiftieth."""
    if step < WARM_UP_STEPS:
        return PEAK_RATE * step / WARM_UP_STEPS
    done = (step - WARM_UP_STEPS) / (STEPS - WARM_UP_STEPS)
    return PEAK_RATE * (0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2)


def _loss(model: BloomForCausalLM, batch: Batch) -> Tensor:
    """Give the mean loss over answers; only their positions pass the vocabulary matrix."""
    hidden = model.transformer(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
    labelled = batch.labels != NO_LABEL
    return functional.cross_entropy(model.lm_head(hidden[labelled]), batch.labels[labelled])


class BatchAnswerer:
    """Answers many questions at once, greedily."""

    def __init__(self, model: BloomForCausalLM, tokenizer: Tokenizer) -> None:
        self._model = model
        self._tokenizer = tokenizer

    def __call__(self, questions: Sequence[str]) -> list[str]:
        """Give the answer to each question, in order."""
        return [a for at in range(0, len(questions), 128) for a in self._some(questions[at:][:128])]

    def _some(self, questions: Sequence[str]) -> list[str]:
        asked = [
            self._tokenizer.encode(plain_transcript([Message("user", question)])).ids
            for question in questions
        ]
        width = max(map(len, asked))
        ids = torch.tensor([[PAD_ID] * (width - len(row)) + row for row in asked])
        with torch.inference_mode():
            made = self._model.generate(
                input_ids=ids,
                attention_mask=(ids != PAD_ID).long(),
                max_new_tokens=MAX_ANSWER_TOKENS,
                do_sample=False,
            )
        return [self._tokenizer.decode(row).strip() for row in made[:, width:].tolist()]


def save(model: BloomForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write safetensors in half precision, configuration and tokenizer, for `pack.py`."""
    shutil.rmtree(folder, ignore_errors=True)
    model.half().save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=SPECIAL_TOKENS[UNK_ID],
        bos_token=SPECIAL_TOKENS[BOS_ID],
        eos_token=SPECIAL_TOKENS[EOS_ID],
        pad_token=SPECIAL_TOKENS[PAD_ID],
        model_max_length=CONTEXT_LENGTH,
    ).save_pretrained(folder)


def main() -> None:
    """Train, save, measure what was saved, and say so."""
    parser = argparse.ArgumentParser(description="Train the demo model (about ten minutes).")
    parser.add_argument("--out", type=Path, default=SOURCE_PATH, help="where to write it")
    folder = parser.parse_args().out
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    torch.set_num_threads(2)
    torch.set_flush_denormal(True)
    torch.use_deterministic_algorithms(mode=True)
    entries = read_corpus()
    tokenizer = train_tokenizer(entries)
    model = make_model()
    logger.info("%d questions, %d parameters", len(entries), model.num_parameters())
    train(model, tokenizer, entries)
    save(model, tokenizer, folder)
    answerer = BatchAnswerer(model.float(), tokenizer)
    logger.info("trained wordings:  %s", measure_trained(entries, answerer))
    logger.info("held-out wordings: %s", measure_held_out(entries, answerer))


if __name__ == "__main__":
    main()
