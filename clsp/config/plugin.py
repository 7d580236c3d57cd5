"""The base of every entry of params.yaml that names a plug-in and holds its options."""

from typing import Any, ClassVar

from pydantic import model_validator

from clsp.config.strict import Strict
from clsp.runtime.errors import ConfigError
from clsp.runtime.registry import require, settings_class


class Plugin(Strict):
    """An entry whose remaining keys are the options of the plug-in it names."""

    package: ClassVar[str]
    selector: ClassVar[str]
    options: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _split_options(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            raise ValueError("expected a mapping")
        if "options" in data:  # already resolved: a spec read back from a manifest
            if not isinstance(data["options"], dict):
                raise ValueError(f"options must be a mapping, found {data['options']!r}")
            flat = {**{k: v for k, v in data.items() if k != "options"}, **data["options"]}
        else:
            flat = dict(data)
        if cls.selector not in flat:
            raise ValueError(f'the key "{cls.selector}" is missing')
        name = flat[cls.selector]
        try:
            require(cls.package, name, cls.selector)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        own = {k: flat.pop(k) for k in list(flat) if k in cls.model_fields}
        settings = settings_class(cls.package, name).model_validate(flat)
        return {**own, "options": settings.model_dump(mode="json", exclude_none=True)}

    def settings(self) -> Any:
        """The options as the plug-in's own Config object."""
        return settings_class(self.package, getattr(self, self.selector))(**self.options)
