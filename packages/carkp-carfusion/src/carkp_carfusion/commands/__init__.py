"""Commands of the CarFusion package: each module holds one thin click command."""
