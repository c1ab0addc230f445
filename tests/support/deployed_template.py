"""The template as CloudFormation would make it: references resolved to values of this host."""

import importlib.util
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.template.cloudformation import ROOT, as_list, resources, statements, template

STACK = "questdb-backup"
REGION: Final = "eu-west-1"
ACCOUNT = "123456789012"
PSEUDO = {
    "AWS::StackName": STACK,
    "AWS::StackId": f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{STACK}/8f0b2c1d",
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::AccountId": ACCOUNT,
    "AWS::URLSuffix": "amazonaws.com",
}
REQUIRED = {
    "DatabaseHost": "10.0.0.5",
    "DatabaseInstance": "Name=questdb",
    "DatabaseSecretArn": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:questdb-AbCdEf",
    "VpcId": "vpc-1",
    "SubnetIds": "subnet-1",
}
_SUB = re.compile(r"\$\{([\w:.]+)\}")
_NO_VALUE = {"Ref": "AWS::NoValue"}


class Template:
    """``parameters`` are those of a deployment; ``names`` are what AWS would name some resources."""

    def __init__(self, parameters: Mapping[str, str], names: Mapping[str, str]) -> None:
        defaults = {name: str(each.get("Default", "")) for name, each in template()["Parameters"].items()}
        self._values = {**PSEUDO, **defaults, **REQUIRED, **parameters, **names}

    def resolve(self, value: Any) -> Any:
        """The value with its functions evaluated. What is NoValue in a map or a list is left out."""
        if isinstance(value, list):
            return [found for each in value if (found := self.resolve(each)) is not None]
        if not isinstance(value, dict):
            return value
        if value == _NO_VALUE:
            return None
        if value.keys() == {"Ref"}:
            return self._ref(value["Ref"])
        if value.keys() == {"Fn::GetAtt"}:
            return self._attribute(*value["Fn::GetAtt"])
        if value.keys() == {"Fn::Sub"}:
            return _SUB.sub(lambda match: self._in_text(match[1]), value["Fn::Sub"])
        if value.keys() == {"Fn::If"}:
            condition, yes, no = value["Fn::If"]
            return self.resolve(yes if self._holds(template()["Conditions"][condition]) else no)
        return {name: found for name, each in value.items() if (found := self.resolve(each)) is not None}

    def environment(self, function: str) -> dict[str, str]:
        """The variables of a function: what all share, and its own."""
        shared = template()["Globals"]["Function"]["Environment"]["Variables"]
        own = self._function(function).get("Environment", {}).get("Variables", {})
        return {name: str(value) for name, value in self.resolve({**shared, **own}).items()}

    def handler(self, function: str) -> Callable[[Any, Any], Any]:
        """The entry point that CodeUri and Handler name, from a module of its own."""
        module_name, _, attribute = template()["Globals"]["Function"]["Handler"].partition(".")
        path = ROOT / self._function(function)["CodeUri"] / f"{module_name}.py"
        spec = importlib.util.spec_from_file_location(f"deployed_{function}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        handler: Callable[[Any, Any], Any] = getattr(module, attribute)
        return handler

    def definition(self, machine: str) -> tuple[dict[str, Any], dict[str, str]]:
        """The states and the substitutions of a state machine, by its logical id."""
        properties = resources("AWS::Serverless::StateMachine")[machine]["Properties"]
        return (
            json.loads((ROOT / properties["DefinitionUri"]).read_text()),
            self.resolve(properties["DefinitionSubstitutions"]),
        )

    def machine_arn(self, machine: str) -> str:
        properties = resources("AWS::Serverless::StateMachine")[machine]["Properties"]
        name = self.resolve(properties["Name"])
        return f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:{name}"

    def statements(self, function: str) -> list[dict[str, Any]]:
        """What the function may do, resources as ARNs with their wildcards."""
        found = []
        for each in statements(self._function(function)):
            resolved = self.resolve(each)
            found.append(
                {
                    **resolved,
                    "Action": as_list(resolved["Action"]),
                    "Resource": as_list(resolved["Resource"]),
                }
            )
        return found

    def _function(self, function: str) -> dict[str, Any]:
        found: dict[str, Any] = resources("AWS::Serverless::Function")[function]["Properties"]
        return found

    def _ref(self, name: str) -> Any:
        if name in resources("AWS::Serverless::StateMachine"):
            return self.machine_arn(name)
        return self._values.get(name, name)

    def _attribute(self, name: str, attribute: str) -> str:
        """A function's ARN is its logical id here; a bucket's and a table's are as on AWS."""
        assert attribute in ("Arn", "QueueName"), attribute
        kind, value = template()["Resources"][name]["Type"], str(self._values.get(name, name))
        if kind == "AWS::S3::Bucket":
            return f"arn:aws:s3:::{value}"
        if kind == "AWS::DynamoDB::Table":
            return f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{value}"
        return value

    def _in_text(self, name: str) -> str:
        if "." in name:
            return self._attribute(*name.split("."))
        return str(self._ref(name))

    def _holds(self, condition: Any) -> bool:
        if "Fn::Not" in condition:
            return not self._holds(condition["Fn::Not"][0])
        first, second = condition["Fn::Equals"]
        return bool(self.resolve(first) == self.resolve(second))
