"""What a written `tf.train.Checkpoint` and live objects share, told before anything is assigned."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from holdfast.errors import FormatError, InvalidInputError

#: Where TensorFlow keeps the graph of the objects, and what it calls the value of a variable.
_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "VARIABLE_VALUE"
#: A part that every checkpoint of a manager has.
_COUNTER = "save_counter"
#: How many values an error names before it counts the rest.
_NAMED = 8


@dataclass(frozen=True)
class Comparison:
    """
    How a written checkpoint and live objects differ.

    Attributes:
        kept_only (tuple[str, ...]): values that were written and have no object here.
        live_only (tuple[str, ...]): objects here that nothing was written for.
        changed (tuple[str, ...]): variables of another type or shape.
        related (bool): whether any part that was given to the one was given to the other.
    """

    kept_only: tuple[str, ...]
    live_only: tuple[str, ...]
    changed: tuple[str, ...]
    related: bool

    def check(self, *, partial: bool) -> None:
        """
        Refuse what would be restored in part.

        Parameters:
            partial (bool): what was written may have no object yet: it is restored once there is
                one.

        Raises:
            InvalidInputError: it names what has no match.
        """
        told = [f"not alike: {_listed(self.changed)}"] if self.changed else []
        if self.live_only:
            told.append(f"only here: {_listed(self.live_only)}")
        if self.kept_only and not (partial and self.related):
            told.append(f"only in the checkpoint: {_listed(self.kept_only)}")
        if told:
            raise InvalidInputError(
                f"what was kept and the tf.train.Checkpoint here differ: {'; '.join(told)}. No "
                "value here was changed. Build the model and the optimizer, and name the parts, as "
                "in the run that is resumed. To take over only what matches, call "
                "checkpoint.restore() on manager.latest_checkpoint, or on the files that "
                "store.download() brings."
            )


class Written:
    """
    A checkpoint that `tf.train.Checkpoint` has written.

    Parameters:
        prefix (str): its files without what follows the name.

    Attributes:
        parts (tuple[str, ...]): the names of what was given to the `tf.train.Checkpoint`.

    Raises:
        FormatError: there is none, or it cannot be read.
    """

    def __init__(self, prefix: str) -> None:
        try:
            reader = tf.train.load_checkpoint(prefix)
            graph = TrackableObjectGraph.FromString(reader.get_tensor(_GRAPH))
            self._types = reader.get_variable_to_dtype_map()
            self._shapes = reader.get_variable_to_shape_map()
            self._nodes: Sequence[Any] = list(graph.nodes)
            self.parts = tuple(child.local_name for child in self._nodes[0].children)
        except Exception as error:  # TensorFlow raises a dozen kinds
            raise FormatError(
                f"TensorFlow cannot read {prefix}: {error} Nothing was changed. It has to be "
                "written by a tf.train.Checkpoint; what a tf.compat.v1.train.Saver has written is "
                "restored with one."
            ) from error

    def compare(self, checkpoint: Any) -> Comparison:
        """Compare it with the objects of a `tf.train.Checkpoint`, which stay as they are."""
        parts = _parts(checkpoint)
        matched = self._match(parts)
        known = {id(each) for each in matched.values()}
        # An optimizer of TensorFlow 1 finds its slots by another way, which is TensorFlow's own.
        slots = {slot.slot_variable_node_id for node in self._nodes for slot in node.slot_variables}
        return Comparison(
            kept_only=tuple(
                attribute.checkpoint_key.partition("/.ATTRIBUTES/")[0]
                for number, node in enumerate(self._nodes)
                if number not in matched and number not in slots
                for attribute in node.attributes
            ),
            live_only=tuple(
                path for path, each in _walk(parts) if id(each) not in known and _has_value(each)
            ),
            changed=tuple(self._changed(matched)),
            related=parts.keys() <= {_COUNTER} or bool(parts.keys() & {*self.parts} - {_COUNTER}),
        )

    def _match(self, parts: Mapping[str, Any]) -> dict[int, Any]:
        """The live object of each node that has one, found along the names as TensorFlow does."""
        matched: dict[int, Any] = {}
        waiting = [(0, parts)]
        for number, here in waiting:
            for child in self._nodes[number].children:
                each = here.get(child.local_name)
                if each is not None and child.node_id and child.node_id not in matched:
                    matched[child.node_id] = each
                    waiting.append((child.node_id, _children(each)))
        return matched

    def _changed(self, matched: Mapping[int, Any]) -> Iterator[str]:
        for number, each in matched.items():
            for attribute in self._nodes[number].attributes:
                if attribute.name != _VALUE or not _is_variable(each):
                    continue
                key = attribute.checkpoint_key
                type_, shape = self._types[key], self._shapes[key]
                live_type, live_shape = tf.as_dtype(each.dtype), tf.TensorShape(each.shape)
                if type_ != live_type or not live_shape.is_compatible_with(shape):
                    name = key.partition("/.ATTRIBUTES/")[0]
                    there = f"{type_.name}{tf.TensorShape(shape)}"
                    yield f"{name} {there} there, {live_type.name}{live_shape} here"


def _children(each: Any) -> dict[str, Any]:
    return dict(tf.train.TrackableView.children(each))


def _parts(checkpoint: Any) -> dict[str, Any]:
    """What was given to a `tf.train.Checkpoint`: by name, and below the one given without."""
    parts = _children(checkpoint)
    root = parts.get("root")
    if root is None:
        return parts
    return _children(root) | {name: each for name, each in parts.items() if each is not root}


def _walk(parts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every live object with its path, once, nearest first."""
    waiting = list(parts.items())
    seen: set[int] = set()
    for path, each in waiting:
        if id(each) not in seen:
            seen.add(id(each))
            yield path, each
            waiting += [(f"{path}/{name}", below) for name, below in _children(each).items()]


def _is_variable(each: Any) -> bool:
    # A variable of Keras is none of TensorFlow's, whatever it is made of.
    return hasattr(each, "assign") and hasattr(each, "shape") and hasattr(each, "dtype")


def _has_value(each: Any) -> bool:
    others = (tf.data.Iterator, tf.train.experimental.PythonState)
    return _is_variable(each) or isinstance(each, others)


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return ", ".join(texts[:_NAMED]) + more
