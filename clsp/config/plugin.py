"""The base of every entry of params.yaml that names a plug-in and holds its options."""

from typing import Any, ClassVar

from pydantic import model_validator

from clsp.config.strict import Strict
from clsp.runtime.errors import ConfigError
from clsp.runtime.registry import names, require, settings_class


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
        cls._refuse_foreign_options(str(name), flat)
        settings = settings_class(cls.package, name).model_validate(flat)
        return {**own, "options": settings.model_dump(mode="json", exclude_none=True)}

    @classmethod
    def _refuse_foreign_options(cls, name: str, given: dict[str, Any]) -> None:
        """Name the owners of an option that the plug-in does not have but others do."""
        known = settings_class(cls.package, name).model_fields
        valid = [field for field in cls.model_fields if field != "options"] + [*known]
        for key in given.keys() - known.keys():
            others = [o for o in names(cls.package) if o != name]
            owners = [o for o in others if key in settings_class(cls.package, o).model_fields]
            if owners:
                raise ValueError(
                    f'"{key}" is an option of {", ".join(owners)}, not of {cls.selector} {name}; '
                    f"valid keys: {', '.join(valid)}"
                )

    def settings(self) -> Any:
        """The options as the plug-in's own Config object."""
        return settings_class(self.package, getattr(self, self.selector))(**self.options)
