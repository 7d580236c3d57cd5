rule import_denoiser:
    """Read a denoiser that was trained elsewhere."""
    input:
        foreign=foreign_of_denoiser,
        dataset=dataset_of_denoiser,
    output:
        model_index="<results>/denoisers/{denoiser}/model_index.json",
        unet=directory("<results>/denoisers/{denoiser}/unet"),
        scheduler=directory("<results>/denoisers/{denoiser}/scheduler"),
        manifest="<results>/denoisers/{denoiser}/manifest.json",
    log:
        "<logs>/import_denoiser/{denoiser}.log",
    wildcard_constraints:
        denoiser=one_of(
            n for n, d in PARAMS.denoisers.items() if not isinstance(d, DenoiserSpec)
        ),
    threads: 1
    params:
        spec=spec_of(denoiser_of),
        code=code_of(denoiser_of),
    shell:
        "exec python -m clsp import-denoiser --spec {params.spec:q} --code {params.code}"
        " --foreign {input.foreign:q} --dataset {input.dataset:q}"
        " --model-index {output.model_index:q} --unet {output.unet:q}"
        " --scheduler {output.scheduler:q} --manifest {output.manifest:q} 2> {log:q}"


rule import_encoder:
    """Read an encoder that was pretrained elsewhere; it is judged like those of runs."""
    input:
        foreign=foreign_of_encoder,
        dataset=dataset_of_imported,
    output:
        encoder="<results>/imported/{imported}/encoder.safetensors",
        manifest="<results>/imported/{imported}/manifest.json",
    log:
        "<logs>/import_encoder/{imported}.log",
    threads: 1
    params:
        spec=spec_of(import_of),
        code=code_of(import_of),
    shell:
        "exec python -m clsp import-encoder --spec {params.spec:q} --code {params.code}"
        " --foreign {input.foreign:q} --dataset {input.dataset:q}"
        " --encoder {output.encoder:q} --manifest {output.manifest:q} 2> {log:q}"
