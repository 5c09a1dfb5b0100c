"""The patterns of the protos and their words."""

from __future__ import annotations

import re
from collections.abc import Iterator

from buf.validate import validate_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorSet

from services.kit import api
from services.kit.patterns import IN_WORDS


def _rules(message: DescriptorProto) -> Iterator[validate_pb2.FieldRules]:
    for field in message.field:
        rules = field.options.Extensions[validate_pb2.field]
        yield from (rules, rules.repeated.items, rules.map.keys, rules.map.values)
    for nested in message.nested_type:
        yield from _rules(nested)


def test_every_pattern_of_the_protos_is_told_in_words_and_no_other_is() -> None:
    files = FileDescriptorSet.FromString(api.descriptors()).file
    ours = [file for file in files if file.package.startswith("conductor.")]

    patterns = {
        rules.string.pattern
        for file in ours
        for message in file.message_type
        for rules in _rules(message)
        if rules.string.pattern
    }

    assert patterns == set(IN_WORDS)
    assert all(re.compile(pattern) for pattern in patterns)
