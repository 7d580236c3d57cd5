rule train_denoiser:
    """Train the diffusion model that candidates are drawn from."""
    input:
        dataset=dataset_of_denoiser,
        checked=data_checked,
    output:
        model_index="<results>/denoisers/{denoiser}/model_index.json",
        unet=directory("<results>/denoisers/{denoiser}/unet"),
        raw=directory("<results>/denoisers/{denoiser}/raw"),
        scheduler=directory("<results>/denoisers/{denoiser}/scheduler"),
        snapshots=directory("<results>/denoisers/{denoiser}/snapshots"),
        history="<results>/denoisers/{denoiser}/history.jsonl",
        manifest="<results>/denoisers/{denoiser}/manifest.json",
    log:
        "<logs>/train_denoiser/{denoiser}.log",
    benchmark:
        "<benchmarks>/train_denoiser/{denoiser}.tsv"
    wildcard_constraints:
        denoiser=one_of(
            n for n, d in PARAMS.denoisers.items() if isinstance(d, DenoiserSpec)
        ),
    priority: 2
    threads: 1
    resources:
        gpu=GPUS_PER_JOB,
    params:
        spec=spec_of(denoiser_of),
        code=code_of(denoiser_of),
        scratch=scratch_of("train-denoiser"),
    shell:
        "export CLSP_PROCESSES={resources.gpu}; exec python -m clsp train-denoiser --spec {params.spec:q} --code {params.code}"
        " --dataset {input.dataset:q} --model-index {output.model_index:q}"
        " --unet {output.unet:q} --raw {output.raw:q} --scheduler {output.scheduler:q}"
        " --snapshots {output.snapshots:q} --history {output.history:q}"
        " --scratch {params.scratch:q} --manifest {output.manifest:q} 2> {log:q}"
