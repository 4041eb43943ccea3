import { validate } from 'deep-email-validator';

import { answer } from './asked.mjs';

// Its answer is valid or not; a technical failure is "not valid" to it, with the text as the reason.
answer(async (email) => {
  const found = await validate({
    email,
    sender: 'probe@lab.example.com',
    validateTypo: false,
    validateDisposable: false,
  });
  return { said: found.valid ? 'exists' : 'missing', why: found.validators[found.reason]?.reason };
});
