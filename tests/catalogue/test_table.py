"""One table of everything public: each technique, the test that holds it, and the reference it is
held against."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import ravine
from ravine.catalogue import FILES, table

TESTS_BY_NAME = {path.stem: path for path in Path(__file__).parents[1].rglob("test_*.py")}

# (test file, test, the reference) -> the techniques that the test holds against it.
HELD: dict[str, dict[tuple[str, str, str], str]] = {
    "source": {
        ("test_sources", "test_digits_are_those_of_scikit_learn", "scikit-learn"): "digits",
        ("test_sources", "test_mnist", "published sums and counts"): "mnist",
        ("test_sources", "test_cifar10_as_published", "the published format"): "cifar10",
        ("test_sources", "test_shakespeare", "the file itself"): "shakespeare",
        ("test_sources", "test_text_is_cut_into_contiguous_pieces", "the text itself"): "text",
        ("test_sources", "test_texts_are_hashed_words_and_pairs", "zlib"): "texts",
        ("test_sources", "test_folder_by_class", "the images written"): "folder",
        ("test_sources", "test_csv_classification", "the rows written"): "csv",
        (
            "test_streams",
            "test_what_does_not_fit_into_memory_has_the_same_order_and_bits",
            "the rows written",
        ): "parquet shards",
        ("test_sources", "test_npz", "the arrays written"): "npz",
        ("test_sources", "test_idx", "the bytes written"): "idx",
        ("test_pipeline", "test_what_targets_say", "the arrays given"): "arrays",
        (
            "test_sources",
            "test_circles_and_blobs_are_where_they_should_be",
            "closed form",
        ): "blobs circles",
        ("test_sources", "test_spirals", "closed form"): "spirals",
        (
            "test_sources",
            "test_characters_differ_and_can_be_told_apart",
            "scikit-learn's classifier",
        ): "characters",
        ("test_sources", "test_parity", "closed form"): "parity",
        ("test_sources", "test_copying", "closed form"): "copying",
        ("test_sources", "test_adding", "closed form"): "adding",
    },
    "preprocess": {
        (
            "test_preprocess",
            "test_against_reference",
            "scikit-learn",
        ): "rescale minmax center standardize normalize "
        "per_sample pca pca_whiten zca one_hot polynomial",
        (
            "test_tabular",
            "test_robust_is_scikit_learns_and_the_clip_its_formula",
            "scikit-learn",
        ): "robust",
        ("test_tabular", "test_yeo_johnson_is_scikit_learns", "scikit-learn"): "yeo_johnson",
        (
            "test_preprocess",
            "test_fourier_features_approach_the_kernel",
            "scikit-learn's kernel",
        ): "fourier",
    },
    "augment": {
        ("test_augment", "test_flip", "torch.flip"): "flip",
        ("test_augment", "test_shift_is_a_cut_from_the_padded_image", "numpy.pad"): "shift",
        ("test_augment", "test_crop_is_shift", "shift"): "crop",
        (
            "test_augment",
            "test_resized_crop_takes_the_area_and_aspect_it_says",
            "its distribution",
        ): "resized_crop",
        ("test_augment", "test_matrices", "closed form; the warp is SciPy's"): "rotate zoom shear",
        (
            "test_augment",
            "test_brightness_adds_one_number_to_each_image",
            "closed form",
        ): "brightness",
        (
            "test_augment",
            "test_contrast_and_saturation_scale_what_they_say",
            "closed form",
        ): "contrast saturation",
        ("test_augment", "test_noise_is_in_units_of_the_deviation", "its moments"): "noise",
        (
            "test_augment",
            "test_erased_and_cut_out_pixels_have_the_mean",
            "closed form",
        ): "erase cutout",
        ("test_augment", "test_time_shift", "indexing"): "time_shift",
        ("test_augment", "test_time_mask", "closed form"): "time_mask",
        ("test_augment", "test_feature_dropout", "closed form"): "feature_dropout",
        (
            "test_augment",
            "test_mixup_mixes_inputs_and_targets_alike",
            "the paper's formula",
        ): "mixup",
        ("test_augment", "test_cutmix_shares_are_areas", "the paper's formula"): "cutmix",
    },
    "layer": {
        (
            "test_layers",
            "test_gradients_by_central_differences",
            "central differences",
        ): "dense flatten reshape transpose embedding chain global_pool maxout",
        ("test_layers", "test_dropout_drops_the_rate_and_keeps_the_mean", "its moments"): "dropout",
        (
            "test_layers",
            "test_members_mapped_equal_direct_calls",
            "torch.func.vmap",
        ): "spatial_dropout gaussian_noise",
        (
            "test_layers",
            "test_alpha_dropout_keeps_mean_and_variance",
            "its moments",
        ): "alpha_dropout",
        (
            "test_layers",
            "test_residual_and_parallel_are_their_formulas",
            "closed form",
        ): "residual parallel",
        ("test_layers", "test_tied_layers_share_one_parameter", "closed form"): "tied",
        ("test_layers", "test_convolution_against_its_definition", "nested loops"): "conv",
        (
            "test_layers",
            "test_locally_connected_with_equal_kernels_is_a_convolution",
            "conv",
        ): "locally_connected",
        (
            "test_layers",
            "test_same_padding_gives_the_extent_divided_by_the_stride_rounded_up",
            "closed form",
        ): "maxpool avgpool",
        (
            "test_layers",
            "test_channel_pool_takes_neighbouring_channels",
            "indexing",
        ): "channel_pool",
        ("test_layers", "test_own_batch_norm_is_torchs_where_both_can", "torch"): "batch_norm",
        ("test_layers", "test_layer_norm", "the formula"): "layer_norm group_norm instance_norm",
        ("test_layers", "test_local_response_norm", "torch"): "local_response_norm",
        ("test_layers", "test_recurrent_layers_are_torchs", "torch"): "rnn lstm gru",
        ("test_attention", "test_attention_is_torchs", "torch"): "attention",
        ("test_attention", "test_a_block_is_torchs_encoder_layer", "torch"): "transformer_block",
        (
            "test_attention",
            "test_sinusoidal_positions_are_the_papers",
            "the paper's formula",
        ): "positions",
        (
            "test_layers",
            "test_activations_against_their_formulas",
            "the formula",
        ): "relu sigmoid tanh hard_sigmoid "
        "hard_tanh softplus softsign leaky_relu prelu elu selu gelu silu softmax log_softmax",
    },
    "initializer": {
        (
            "test_initializers",
            "test_moments",
            "the distribution's moments",
        ): "zeros constant uniform normal "
        "lecun_uniform lecun_normal glorot_uniform glorot_normal he_uniform he_normal",
        (
            "test_initializers",
            "test_orthogonal_rows_or_columns_are_orthonormal",
            "closed form",
        ): "orthogonal",
        (
            "test_initializers",
            "test_identity_kernels_hand_their_input_through",
            "closed form",
        ): "identity",
        (
            "test_initializers",
            "test_lsuv_gives_every_layer_unit_variance",
            "the paper's claim",
        ): "lsuv",
    },
    "loss": {
        (
            "test_losses",
            "test_losses_of_the_samples",
            "torch and the formula",
        ): "squared absolute huber cross_entropy "
        "binary_cross_entropy hinge crammer_singer binary_hinge one_vs_all nll kl expected_cost multi_task output",
        ("test_losses", "test_auto_is_chosen_by_the_task", "the losses it stands for"): "auto",
    },
    "metric": {
        (
            "test_metrics",
            "test_metrics",
            "scikit-learn",
        ): "accuracy error balanced_accuracy top_k precision recall f1 "
        "roc_auc log_loss mean_cost perplexity confusion_matrix mse rmse mae r2",
    },
    "model": {
        (
            "test_models",
            "test_parameters_operations_and_depth_are_the_published_ones",
            "published counts",
        ): "mlp lenet alexnet vgg all_cnn resnet resnet18 resnet34 resnet50 resnet9",
        (
            "test_models",
            "test_outputs_and_gradients",
            "central differences",
        ): "layers linear softmax maxout_mlp char_rnn char_gru",
        (
            "test_initializers",
            "test_a_persons_module_is_drawn_anew_by_seed",
            "torch's own reset",
        ): "module",
        ("test_models", "test_padding_changes_nothing", "unpadded sequences"): "rnn lstm gru",
        ("test_models", "test_a_character_model_does_not_look_ahead", "causality"): "char_lstm",
        (
            "test_models",
            "test_a_bag_of_words_is_the_mean_of_its_vectors",
            "the formula",
        ): "word_bag",
        (
            "test_models",
            "test_a_convolution_before_an_lstm_is_pytorchs",
            "conv1d and LSTMCell",
        ): "char_cnn_lstm",
        ("test_attention", "test_gpt_begins_as_gpt2_does", "GPT-2's deviations"): "gpt",
        ("test_tabular", "test_periodic_embedding_is_its_formula", "closed form"): "tabular",
        ("test_published", "test_logits_are_transformers_own", "transformers"): "hf",
        ("test_published", "test_timm_is_asked_for_network_and_normalisation", "its calls"): "timm",
        (
            "test_attention",
            "test_a_transformer_does_not_read_padding",
            "unpadded sequences",
        ): "transformer",
    },
    "optimizer": {
        (
            "test_optimizers",
            "test_alone",
            "torch.optim, or the paper's algorithm",
        ): "sgd momentum nesterov rprop "
        "adagrad adadelta rmsprop adam amsgrad adamw adamax nadam radam lars lamb",
    },
    "schedule": {
        (
            "test_schedules",
            "test_as_torch_has_it",
            "torch.optim.lr_scheduler",
        ): "constant step multistep exponential "
        "inverse_time linear polynomial cosine warm_restarts triangular one_cycle table",
        (
            "test_schedules",
            "test_plateau_as_torch_has_it",
            "torch's ReduceLROnPlateau",
        ): "on_plateau",
    },
    "constraint": {
        (
            "test_constraints",
            "test_nearest_point",
            "the nearest point, by bisection",
        ): "max_norm unit_norm l2_ball l1_ball",
    },
}
TESTS = [(kind, *row) for kind, rows in HELD.items() for row in rows]
IDS = [f"{kind}-{test}" for kind, _, test, _ in TESTS]


@cache
def source(file: str) -> str:
    return TESTS_BY_NAME[file].read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", FILES)
def test_every_technique_has_one_row(kind):
    named = [name for names in HELD.get(kind, {}).values() for name in names.split()]
    assert sorted(named) == sorted(table(kind)), (
        "one row for each technique, and none for what is not there"
    )


@pytest.mark.parametrize(("kind", "file", "test", "reference"), TESTS, ids=IDS)
def test_the_named_test_exists_and_speaks_of_the_technique(kind, file, test, reference):
    functions = {
        node.name for node in ast.parse(source(file)).body if isinstance(node, ast.FunctionDef)
    }
    assert test in functions
    for name in HELD[kind][file, test, reference].split():
        assert re.search(rf"(?<![a-z]){name}(?![a-z])", source(file)), (
            f"{file} does not speak of {name}"
        )


TECHNIQUES = [row for kind in FILES for row in table(kind).values()]
SOURCES = Path(ravine.__file__).parent


@pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda t: f"{t.kind}-{t.name}")
def test_every_field_is_named_in_the_docstring(technique):
    words = set(re.findall(r"[A-Za-z_]\w*", technique.doc))
    assert set(technique.fields) <= words


@pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda t: f"{t.kind}-{t.name}")
def test_what_raises_says_so_in_the_docstring(technique):
    """Errors that the function itself raises, or a helper in its file that it calls by name (of
    metrics these are about outputs of another task, which a loss would have refused)."""
    file, metric = technique.module.removeprefix("ravine."), technique.kind == "metric"
    if _raises(file, technique.name, helpers=not metric):
        assert "\nErrors: " in technique.doc


@cache
def _functions(file):
    tree = ast.parse(SOURCES.joinpath(*file.split(".")).with_suffix(".py").read_text())
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def _raises(file, name, above=(), helpers=True):
    inside = list(ast.walk(_functions(file)[name]))
    if any(isinstance(node, ast.Raise) and node.exc is not None for node in inside):
        return True
    called = {
        node.func.id
        for node in inside
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    own = (called & set(_functions(file))) - {name, *above} if helpers else ()
    return any(_raises(file, other, (*above, name)) for other in own)
