"""An agent of the OpenAI Agents SDK, traced by SGP's processor."""

import scale_gp_beta.lib.tracing as tracing
from agents.tracing import set_trace_processors
from scale_gp_beta import SGPClient
from scale_gp_beta.lib.tracing.integrations.openai.openai_tracing_sgp_processor import (
    OpenAITracingSGPProcessor,
)

import scripted_agent

tracing.init(client=SGPClient())
processor = OpenAITracingSGPProcessor()
set_trace_processors([processor])
scripted_agent.run()
processor.force_flush()
