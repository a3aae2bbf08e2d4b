import pytest

from nnunetv2_voco.classes import matching_outputs, output_classes, same_name


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ({"background": 0, "liver": 1, "tumour": 2}, ("background", "liver", "tumour")),
        ({"tumour": 2, "background": 0, "liver": 1}, ("background", "liver", "tumour")),
        ({"background": 0, "liver": [1], "Ignore": 2}, ("background", "liver")),
        ({"background": 0, "whole": [1, 2], "tumour": 2}, ()),
        ({}, ("background",)),
    ],
)
def test_outputs_are_named_in_the_order_of_the_labels_values(labels, classes):
    assert output_classes(labels) == classes


def test_nnunet_gives_a_network_as_many_outputs():
    label_handling = pytest.importorskip("nnunetv2.utilities.label_handling.label_handling")
    labels = {"background": 0, "b": 2, "a": 1, "ignore": 3}
    manager = label_handling.LabelManager(labels, regions_class_order=None)
    classes = output_classes(labels)
    assert len(classes) == manager.num_segmentation_heads
    assert [labels[name] for name in classes] == manager.all_labels


@pytest.mark.parametrize("spelling", ["Left_Kidney", "left kidney", " LEFT-KIDNEY ", "left__kidney"])
def test_spellings_of_one_name_are_alike(spelling):
    assert same_name(spelling) == same_name("left kidney")
    assert same_name(spelling) != same_name("kidney left")


def test_outputs_of_one_name_are_paired():
    source, target = ("background", "liver", "Left_Kidney"), ("background", "left kidney", "spleen", "LIVER")
    assert matching_outputs(source, target) == [(0, 0), (2, 1), (1, 3)]


@pytest.mark.parametrize("target", [(), ("background",), ("background", "spleen")])
def test_background_alone_is_no_match(target):
    assert matching_outputs(("background", "liver"), target) == []
    assert matching_outputs((), target) == []
