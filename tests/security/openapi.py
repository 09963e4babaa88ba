"""A2A's HTTP+JSON binding in OpenAPI, made from the protocol's own protobuf: nobody keeps it up to date."""

import re
from typing import Any

from a2a.types import a2a_pb2
from google.api.annotations_pb2 import http
from google.api.field_behavior_pb2 import FieldBehavior, field_behavior
from google.protobuf.descriptor import Descriptor, FieldDescriptor

SERVICE = a2a_pb2.DESCRIPTOR.services_by_name["A2AService"]
Schema = dict[str, Any]
_KNOWN: dict[str, Schema] = {
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
}
_SCALARS: dict[int, Schema] = {
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
}


def describe(known: dict[str, list[Any]]) -> Schema:
    """A2A 1.0 §11 under /rest: each rule of `google.api.http`, tagged with its operation.

    `known` are values that fields may well have, by their names.
    """
    components: dict[str, Schema] = {}
    paths: dict[str, Schema] = {}
    for method in SERVICE.methods:
        one = method.GetOptions().Extensions[http]  # its additional bindings have a tenant before the same path
        verb = one.WhichOneof("pattern")
        template = re.sub(r"{(\w+)(=[^}]*)?}", r"{\1}", getattr(one, verb))
        in_path = re.findall(r"{(\w+)}", template)
        request = method.input_type
        answers = {"default": {"description": "What came of it."}}
        parameters: list[Schema] = []
        operation: Schema = {"tags": [method.name], "parameters": parameters, "responses": answers}
        for name in in_path:
            value = _value(request.fields_by_name[name], components, known)
            parameters.append({"name": name, "in": "path", "required": True, "schema": value})
        if one.body:
            _message(request, components, known)
            body = {"$ref": f"#/components/schemas/{request.name}"}
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
        else:
            parameters += [
                {"name": field.json_name, "in": "query", "schema": _value(field, components, known)}
                for field in request.fields if field.name not in in_path
            ]  # fmt: skip
        paths.setdefault(f"/rest{template}", {})[verb] = operation
    info = {"title": "A2A", "version": "1.0"}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": components}}


def _message(message: Descriptor, components: dict[str, Schema], known: dict[str, list[Any]]) -> None:
    if message.name in components:
        return
    components[message.name] = schema = {"type": "object", "properties": {}, "required": []}
    for field in message.fields:
        value = _value(field, components, known)
        schema["properties"][field.json_name] = {"type": "array", "items": value} if field.is_repeated else value
        if FieldBehavior.REQUIRED in field.GetOptions().Extensions[field_behavior]:
            schema["required"].append(field.json_name)


def _value(field: FieldDescriptor, components: dict[str, Schema], known: dict[str, list[Any]]) -> Schema:
    if field.message_type is not None:
        if field.message_type.full_name in _KNOWN:
            return _KNOWN[field.message_type.full_name]
        _message(field.message_type, components, known)
        return {"$ref": f"#/components/schemas/{field.message_type.name}"}
    if field.enum_type is not None:
        return {"enum": [value.name for value in field.enum_type.values]}
    if field.name in known:
        return {"anyOf": [{"enum": known[field.name]}, _SCALARS[field.type]]}
    return _SCALARS[field.type]
