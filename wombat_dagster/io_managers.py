"""Where products go: written whole or not at all, then told to ``wombatpipeline``.

A crash may leave a product without a row (the next run makes both again), never a row without a
product. Pixels never travel through here: paths and small tables do.
"""

import hashlib
from typing import Any

import dagster as dg

from wombat_dagster.resources import ObservatoryResource


class ProductIOManager(dg.ConfigurableIOManager):
    """Writes a product atomically, then its row and its status words."""

    observatory: dg.ResourceDependency[ObservatoryResource]

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Store `obj`."""
        from wombat_dagster.products import PRODUCTS
        from wombat_dagster.store.frames import write_bytes_atomic

        observatory = self.observatory.open()
        asset, key = context.asset_key.to_user_string(), context.partition_key
        product = PRODUCTS[asset]
        path = product.path(observatory.layout, key)
        data = product.encode(obj)
        for other, content in product.beside(observatory.layout, key, obj).items():
            write_bytes_atomic(other, content)
        write_bytes_atomic(path, data)
        content_hash = hashlib.sha256(data).hexdigest()
        observatory.status.record_product(
            key,
            asset,
            path=observatory.layout.relative_to_products(path),
            content_hash=content_hash,
            version=content_hash[:16],
            inputs=product.inputs(observatory, key, obj),
            status=product.status(observatory, key, obj),
        )
        context.add_output_metadata({"file": dg.MetadataValue.path(str(path))})

    def load_input(self, context: dg.InputContext) -> Any:
        """Return the product of the same partition of the upstream asset."""
        from wombat_dagster.products import read_product

        return read_product(
            self.observatory.open(), context.asset_key.to_user_string(), context.partition_key
        )
