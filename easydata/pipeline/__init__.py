"""Configurations, and the pipeline that they describe."""

from easydata.pipeline.config import (
    CacheStageConfig,
    DatasetConfig,
    LoadStageConfig,
    MixStageConfig,
    ObservabilityConfig,
    PackStageConfig,
    PipelineConfig,
    RayConfig,
    SaveStageConfig,
    SourceStageConfig,
    TokenizerConfig,
    TokenizeStageConfig,
    WeightSchedulePoint,
)
from easydata.pipeline.config_files import dump_config, load_config
from easydata.pipeline.functions import create_pipeline, tokenize_and_save
from easydata.pipeline.pipeline import Pipeline
from easydata.pipeline.pretokenize import pretokenize

__all__ = [
    "CacheStageConfig",
    "DatasetConfig",
    "LoadStageConfig",
    "MixStageConfig",
    "ObservabilityConfig",
    "PackStageConfig",
    "Pipeline",
    "PipelineConfig",
    "RayConfig",
    "SaveStageConfig",
    "SourceStageConfig",
    "TokenizeStageConfig",
    "TokenizerConfig",
    "WeightSchedulePoint",
    "create_pipeline",
    "dump_config",
    "load_config",
    "pretokenize",
    "tokenize_and_save",
]
