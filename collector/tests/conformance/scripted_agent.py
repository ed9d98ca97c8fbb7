"""An agent of the OpenAI Agents SDK with a tool. Its model is a script, so that nothing leaves the
machine."""

import asyncio

from agents import (
    Agent,
    Model,
    ModelResponse,
    RunConfig,
    Runner,
    Usage,
    function_tool,
    generation_span,
)
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)

TRACE_ID = "trace_" + "0" * 31 + "1"


class ScriptedModel(Model):
    """Calls the tool first, and answers when it has the tool's output."""

    turn = 0

    async def get_response(self, system_instructions, input, *args, **kwargs):
        self.turn += 1
        with generation_span(input=input, model="scripted") as span:
            if self.turn == 1:
                output = ResponseFunctionToolCall(
                    type="function_call",
                    call_id="call-1",
                    name="weather",
                    arguments='{"city": "Bern"}',
                )
            else:
                text = ResponseOutputText(type="output_text", text="It rains.", annotations=[])
                output = ResponseOutputMessage(
                    id="message-1",
                    type="message",
                    role="assistant",
                    status="completed",
                    content=[text],
                )
            span.span_data.output = [output.model_dump()]
            span.span_data.usage = {"input_tokens": 10 * self.turn, "output_tokens": self.turn}
        return ModelResponse(output=[output], usage=Usage(), response_id=None)

    def stream_response(self, *args, **kwargs):
        raise NotImplementedError


@function_tool
def weather(city: str) -> str:
    return f"rain in {city}"


def run():
    model = ScriptedModel()
    agent = Agent(name="Forecaster", instructions="Be brief.", tools=[weather], model=model)
    config = RunConfig(workflow_name="forecast", trace_id=TRACE_ID, group_id="chat-1")
    result = asyncio.run(Runner.run(agent, "Weather in Bern?", run_config=config))
    assert result.final_output == "It rains.", result
