rule train_denoiser:
    """Train the unconditional diffusion model that candidates are drawn from."""
    input:
        dataset=dataset_of_denoiser,
        checked=data_checked,
    output:
        model_index="<results>/denoisers/{denoiser}/model_index.json",
        unet=directory("<results>/denoisers/{denoiser}/unet"),
        raw=directory("<results>/denoisers/{denoiser}/raw"),
        scheduler=directory("<results>/denoisers/{denoiser}/scheduler"),
        history="<results>/denoisers/{denoiser}/history.jsonl",
        manifest="<results>/denoisers/{denoiser}/manifest.json",
    log:
        "<logs>/train_denoiser/{denoiser}.log",
    benchmark:
        "<benchmarks>/train_denoiser/{denoiser}.tsv"
    priority: 2
    threads: 1
    resources:
        gpu=GPUS_PER_JOB,
    params:
        spec=spec_of(denoiser_of),
        code=code_of(denoiser_of),
        scratch=scratch_of("train-denoiser"),
    shell:
        "exec python -m clsp train-denoiser --spec {params.spec:q} --code {params.code}"
        " --dataset {input.dataset:q} --model-index {output.model_index:q}"
        " --unet {output.unet:q} --raw {output.raw:q} --scheduler {output.scheduler:q}"
        " --history {output.history:q} --scratch {params.scratch:q}"
        " --manifest {output.manifest:q} 2> {log:q}"
