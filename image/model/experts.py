"""
Experts: the matrices of a mixture of experts, laid out so that OpenVINO reads those it needs.

Its product of the experts that tokens are routed to takes weights [experts, outputs, inputs]. Other
layouts are turned as the model is loaded, for which narrow weights are widened, and stay wide.
"""

from typing import Final

import numpy as np
import openvino
from openvino import opset13 as operations

_RANK: Final = 3


def turn_experts(graph: openvino.Model) -> int:
    """Lay out the matrices of all experts in *graph* as outputs by inputs; give how many it had."""
    turned = 0
    for product in graph.get_ops():
        if product.get_type_name() != "MatMul" or product.get_attributes()["transpose_b"]:
            continue
        weights, widened = product.input_value(1).get_node(), None
        if weights.get_type_name() == "Convert":
            weights, widened = weights.input_value(0).get_node(), weights
        if weights.get_type_name() != "Constant" or len(weights.shape) != _RANK:
            continue
        _turn(product, weights, widened)
        turned += 1
    graph.validate_nodes_and_infer_types()
    return turned


def _turn(product: openvino.Node, weights: openvino.Node, widened: openvino.Node | None) -> None:
    """Put a product of turned *weights* in the place of *product*."""
    experts, inputs, outputs = weights.shape
    shape = openvino.Shape([experts, outputs, inputs])
    numbers = openvino.Tensor(weights.get_element_type(), shape)
    numbers.data[:] = np.swapaxes(weights.data, 1, 2)
    turned = operations.constant(numbers, shared_memory=True)
    turned.set_friendly_name(weights.get_friendly_name())
    if widened is not None:
        widened.input(0).replace_source_output(turned.output(0))
        widened.validate_and_infer_types()
        turned = widened
    new = operations.matmul(
        product.input_value(0),
        turned,
        transpose_a=product.get_attributes()["transpose_a"],
        transpose_b=True,
    )
    new.set_friendly_name(product.get_friendly_name())
    product.output(0).replace(new.output(0))
