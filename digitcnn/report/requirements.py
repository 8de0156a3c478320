"""Requirements: every bullet of the assignment, and where the report answers it.

The appendix shows the list with live references, `digitcnn check` and a test compare its labels
with those of the frozen report. It is code rather than a data file so that a change of it makes
the appendix be executed again (see `digitcnn.provenance`).
"""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd


class Requirement(NamedTuple):
    """A question's letter, what it asks for, and the labels that answer it, with spaces between."""

    question: str
    asks: str
    labels: str


REQUIREMENTS = tuple(
    Requirement(question, asks, labels)
    for question, rows in {
        "a": (
            ("MNIST and SVHN read with torchvision, and which copy it was", "sec-source"),
            ("Seed 42 for random, NumPy and torch", "sec-source"),
            ("One image format for both data sets", "sec-source"),
            ("Official sets pooled, stratified split of 70, 10 and 20 %", "sec-split tbl-split"),
            ("What pooling does to comparability", "sec-split"),
            ("Exact duplicates across splits counted", "sec-split tbl-duplicates"),
            (
                "120 labelled images: the first two of each class, split and data set",
                "sec-samples fig-samples-mnist fig-samples-svhn",
            ),
            ("Class distribution of each split", "sec-distribution fig-classes tbl-classes"),
            ("Statistics of the intensities", "sec-intensity fig-intensity tbl-intensity"),
        ),
        "b": (
            (
                "Network of convolution, batch normalisation, ReLU, max-pooling, a fully connected "
                "feature layer and a softmax output of ten",
                "sec-architecture tbl-architecture fig-architecture",
            ),
            ("Why softmax is not applied before the loss", "sec-architecture eq-softmax"),
            ("Loss, schedule and augmentation of the training", "sec-procedure tbl-configuration"),
            ("Experiment: optimiser and learning rate", "sec-optimizer fig-optimizer"),
            ("Experiment: batch size", "sec-batch fig-batch"),
            ("Experiment: activation", "sec-activation fig-activation"),
            (
                "Ablations: batch normalisation, shortcuts, augmentation, dropout, width, others",
                "sec-ablation fig-ablation fig-settings",
            ),
            (
                "Every setting against the recipe, beyond the chance between seeds or not",
                "sec-experiments sec-verdicts tbl-experiments",
            ),
            ("Chosen configuration, and why", "sec-choice tbl-configuration"),
            ("50 epochs from scratch on each data set", "sec-curves tbl-final tbl-seeds"),
            ("The same recipe on the official division", "sec-official tbl-official"),
            ("Curves of the loss, training and validation", "sec-curves fig-loss"),
            ("Curves of the accuracy, training and validation", "sec-curves fig-accuracy"),
            ("Macro precision and recall", "fig-precision tbl-final"),
            (
                "Metrics of every epoch as a table and as text files",
                "sec-files tbl-epochs-mnist tbl-epochs-svhn",
            ),
            ("Generalisation gap", "sec-gap tbl-gap"),
        ),
        "c": (
            (
                "Compare the performance of the trained models on MNIST and SVHN",
                "sec-eval-compare tbl-eval-summary tbl-eval-difficulty",
            ),
            (
                "Identify and visualise misclassified examples from the test sets for each class",
                "sec-eval-errors fig-eval-errors-mnist fig-eval-errors-svhn",
            ),
            (
                "Provide explanations for why these misclassifications might have occurred",
                "sec-eval-audit tbl-eval-audit fig-eval-codes sec-eval-confusions "
                "fig-eval-confusions-mnist fig-eval-edits tbl-eval-edits "
                "fig-eval-confusions-svhn tbl-eval-remedies",
            ),
            (
                "Suggest potential improvements to the model",
                "sec-eval-improvements tbl-eval-improvements",
            ),
            (
                "Implement a function to load the trained model and perform inference",
                "sec-eval-inference",
            ),
            (
                "Dynamically demonstrate inference on random test samples from both data sets",
                "sec-eval-inference fig-eval-maps",
            ),
            ("Create confusion matrices for both data sets", "sec-eval-matrices fig-eval-matrices"),
            (
                "Visualise probability maps (softmax scores) for random test samples",
                "sec-eval-maps fig-eval-maps",
            ),
            ("Analyse classification performance per class", "sec-eval-classes fig-eval-classes"),
        ),
        "d": (
            (
                "UMAP of the feature layer over the whole test split, by class",
                "sec-repr-maps fig-repr-mnist fig-repr-svhn",
            ),
            ("The untrained network beside it", "fig-repr-mnist fig-repr-svhn"),
            ("Separation of the classes in numbers", "tbl-repr-quality"),
            (
                "Separation of the classes confused most",
                "sec-repr-pairs fig-repr-pairs tbl-repr-pairs",
            ),
            (
                "Both data sets through one model, in one embedding, both ways",
                "sec-repr-both fig-repr-both-mnist fig-repr-both-svhn tbl-repr-both",
            ),
            (
                "Each model on the other data set: accuracy, precision, recall",
                "sec-repr-cross tbl-repr-cross",
            ),
            ("The same by class and as confusion matrix", "fig-repr-confusion tbl-repr-per-class"),
            (
                "The same as UMAP, by true class and by prediction",
                "fig-repr-cross-mnist fig-repr-cross-svhn",
            ),
            (
                "Why the two directions differ, with controls",
                "sec-repr-why fig-repr-controls-mnist fig-repr-controls-svhn fig-repr-training "
                "tbl-repr-training",
            ),
            ("Comparison with the literature", "tbl-repr-literature"),
            (
                "Whether a model can tell that an image is foreign",
                "sec-repr-tell fig-repr-scores tbl-repr-detection",
            ),
        ),
        "e": (
            (
                "Three cases of '1' and '2', from scratch, for both data sets",
                "sec-imb-cases tbl-imb-counts",
            ),
            ("Training curves of each case", "sec-imbalance fig-imb-curves"),
            (
                "Controls at an equal number of steps",
                "sec-imb-control fig-imb-control tbl-imb-control",
            ),
            (
                "Metrics on the two classes of both test splits, over the seeds",
                "sec-imb-results tbl-imb-results tbl-imb-results-other",
            ),
            ("Confusion matrices of each case", "fig-imb-confusion"),
            ("Share of '1' among the predictions", "fig-imb-share"),
            ("Distribution of the logit margin", "fig-imb-margin"),
            (
                "UMAP of the features: cases by training set by test set",
                "sec-imb-umap fig-imb-umap-mnist fig-imb-umap-svhn",
            ),
            ("How the manifold changes, in numbers", "tbl-imb-geometry"),
            (
                "Why MNIST suffers less: how far a few images reach",
                "sec-imb-why fig-imb-why",
            ),
            (
                "Mitigations: what each gains and costs",
                "sec-imb-mitigations tbl-imb-mitigations fig-imb-mitigations",
            ),
        ),
        "f": (
            ("Findings on (a)", "sec-findings sec-find-data"),
            ("Findings on (b)", "sec-find-training"),
            ("Findings on (c)", "sec-find-evaluation"),
            ("Findings on (d)", "sec-find-representation"),
            ("Findings on (e)", "sec-find-imbalance"),
            (
                "Hyperparameters, architecture and improvements justified",
                "sec-find-choices tbl-find-choices",
            ),
            ("Limits of the results", "sec-find-limits"),
            ("Machine, versions, wall times", "sec-find-reproduce tbl-find-environment"),
            ("Keys and sizes of the models, and what was read", "tbl-find-models tbl-runs"),
            ("Where each requirement is answered", "sec-requirements tbl-requirements"),
            ("What each result was made from", "sec-appendix sec-provenance"),
        ),
    }.items()
    for asks, labels in rows
)


def table() -> pd.DataFrame:
    """Question, requirement and answer, with live references."""
    answers = [", ".join(f"@{label}" for label in row.labels.split()) for row in REQUIREMENTS]
    return pd.DataFrame(
        {
            "question": [f"({row.question})" for row in REQUIREMENTS],
            "requirement": [row.asks for row in REQUIREMENTS],
            "answered in": answers,
        }
    )
