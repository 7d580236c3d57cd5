"""The paper's pipeline, in data-flow order. What to run stands in params.yaml."""

from pathlib import Path

from snakemake.utils import min_version

from clsp.config.load import read_yaml
from clsp.workflow.stop import or_stop

min_version("9.27")


report: "reports/spec/captions/workflow.rst"


# A file given with --configfile replaces the demo; it is never merged into it. Read by the suite
# first, Snakemake's own reader takes the last of a key given twice and hides where YAML is broken.
for path in workflow.overwrite_configfiles or ["params.yaml"]:
    or_stop(read_yaml, Path(path))

if not workflow.overwrite_configfiles:

    configfile: "params.yaml"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/diffusion.smk"
include: "rules/imports.smk"
include: "rules/synthesis.smk"
include: "rules/pretrain.smk"
include: "rules/mining.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"
include: "rules/audit.smk"
include: "rules/export.smk"


localrules:
    all,
    data,
    diffusion,
    synthesis,
    pretrain,
    mining,
    evaluate,
    tables,
    report,
    fetch_dataset,
    check_data,
    collect_results,
    judge_claims,
    render_table,
    render_figure,
    render_report,
    audit_suite,
    exports,
    export_models,
    export_crate,


rule all:
    """The report and its audit: everything."""
    default_target: True
    input:
        rules.render_report.output,
        rules.audit_suite.output,


rule data:
    """Every dataset that the runs need, prepared."""
    input:
        [prepared(name) for name in plan.datasets_needed(PARAMS)],


rule diffusion:
    """Every denoiser that the runs need."""
    input:
        [denoiser_files_of(name) for name in plan.denoisers_needed(PARAMS)],


rule synthesis:
    """Every bank that the runs need."""
    input:
        [
            expand(rules.gather_bank.output, bank=bank)
            for bank in plan.banks_needed(PARAMS)
        ],


rule pretrain:
    """Every encoder, pretrained here or imported."""
    input:
        expand(rules.pretrain_encoder.output, run=RUNS),
        expand(rules.import_encoder.output, imported=IMPORTED),


rule mining:
    """Every set of pairs that the runs need, and the encoders that judge them."""
    input:
        [
            expand(rules.mine_pairs.output, pairs=name)
            for name in plan.pairs_needed(PARAMS)
        ],


rule evaluate:
    """Linear probe, kNN and transfers of every encoder; quality of banks; duplicates in tests."""
    input:
        expand(rules.probe_encoder.output, encoder=ENCODERS),
        TRANSFERS,
        QUALITY,
        rules.count_duplicates.output,


rule tables:
    """Every table, from the manifests alone."""
    input:
        expand(rules.render_table.output, table=PARAMS.tables),
        rules.judge_claims.output,


rule report:
    """Tables, figures and the HTML report."""
    input:
        rules.render_report.output,


rule exports:
    """Model cards of every encoder and an RO-Crate; made after the audit, and only on demand."""
    input:
        rules.export_models.output,
        rules.export_crate.output,
