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
            ("Both models compared, with intervals", "sec-eval-compare tbl-eval-summary"),
            ("Loss of both models", "fig-eval-loss"),
            (
                "Where the difference in difficulty comes from",
                "sec-eval-difficulty fig-eval-examples fig-eval-difficulty",
            ),
            (
                "Misclassified examples of every class, with the confidence",
                "sec-eval-errors fig-eval-errors-mnist fig-eval-errors-svhn",
            ),
            (
                "Why: what errors have in common, with a control",
                "sec-eval-causes tbl-eval-definitions fig-eval-causes tbl-eval-causes-mnist "
                "tbl-eval-causes-svhn",
            ),
            ("Labels in doubt", "sec-eval-labels fig-eval-labels"),
            ("Confusion matrices of both models", "sec-eval-confusion fig-eval-confusion"),
            ("The most confused pairs, with examples", "fig-eval-pairs"),
            (
                "Probability maps of random test images",
                "sec-eval-maps fig-eval-maps-mnist fig-eval-maps-svhn",
            ),
            (
                "Inference with a saved model, on files and on random test images",
                "sec-eval-live fig-eval-files fig-eval-live",
            ),
            (
                "Precision, recall, F1 and support of each class",
                "sec-eval-classes tbl-eval-classes-mnist tbl-eval-classes-svhn fig-eval-classes",
            ),
            (
                "Calibration, before and after temperature scaling",
                "sec-eval-calibration fig-eval-reliability tbl-eval-calibration",
            ),
            ("Improvements suggested", "sec-eval-improvements"),
            (
                "Improvements tried, with gain and cost",
                "tbl-eval-candidates tbl-eval-tta tbl-eval-selective fig-eval-coverage",
            ),
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
